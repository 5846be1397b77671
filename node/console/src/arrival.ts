// How somebody arrives: with a link that carries a token in its fragment, which no server sees; or with what this tab
// or this browser kept.

import { keep, kept } from './kept'
import { bareToken } from './token'

/** What a link brings. */
export interface Arrival {
  token: string
  peers: string[]
}

/** Reads `#token=…&peer=…&peer=…`; `null`: this is another fragment. */
export function readFragment(fragment: string): Arrival | null {
  const fields = new URLSearchParams(fragment.replace(/^#/, ''))
  const token = bareToken(fields.get('token') ?? '')
  return token ? { token, peers: fields.getAll('peer') } : null
}

/** Takes the token out of the page's address and its history, at once. */
export function takeFragment(): Arrival | null {
  const arrival = readFragment(location.hash)
  if (arrival) history.replaceState(null, '', `${location.pathname}${location.search}#/`)
  return arrival
}

const TOKEN = 'vc.token'
const PEERS = 'vc.peers.'
/** So many addresses of a cluster are kept. */
const MAX_PEERS = 32

/** The token that the user asked this tab to remember. */
export function rememberedToken(): string | null {
  return kept('sessionStorage', TOKEN)
}

export function rememberToken(token: string): void {
  keep('sessionStorage', TOKEN, token)
}

export function forgetToken(): void {
  keep('sessionStorage', TOKEN, null)
}

/** Addresses under which nodes of a cluster were seen: they outlive those in an old token. */
export function knownPeers(cluster: string): string[] {
  try {
    const peers: unknown = JSON.parse(kept('localStorage', PEERS + cluster) ?? '[]')
    return Array.isArray(peers) ? peers.filter((it) => typeof it === 'string') : []
  } catch {
    return []
  }
}

export function keepPeers(cluster: string, peers: readonly string[]): void {
  keep('localStorage', PEERS + cluster, JSON.stringify(peers.slice(0, MAX_PEERS)))
}
