// Credentials to sign in with: from the page's fragment, which browsers send to no server, or from the browser's storage.

import { readItem, writeItem } from './storage'
import { stripWhitespace } from './token'

/** A token and more addresses to dial. */
export interface Credentials {
  token: string
  /** Multiaddrs, beside those in the token. */
  peers: string[]
}

/** Parses `#token=…&peer=…&peer=…`. Returns `null` for a fragment without a token. */
export function parseFragment(fragment: string): Credentials | null {
  const fields = new URLSearchParams(fragment.replace(/^#/, ''))
  const token = stripWhitespace(fields.get('token') ?? '')
  return token ? { token, peers: fields.getAll('peer') } : null
}

/** Reads the credentials in the page's fragment and removes them from the address bar and the history. */
export function consumeFragment(): Credentials | null {
  const credentials = parseFragment(location.hash)
  if (credentials) history.replaceState(null, '', `${location.pathname}${location.search}#/`)
  return credentials
}

const TOKEN_KEY = 'vc.token'
const PEERS_KEY = 'vc.peers.'
/** Addresses stored per cluster, at most. */
const MAX_PEERS = 32

/** Returns the token that the user chose to remember in this tab. */
export function storedToken(): string | null {
  return readItem('sessionStorage', TOKEN_KEY)
}

export function storeToken(token: string): void {
  writeItem('sessionStorage', TOKEN_KEY, token)
}

export function removeToken(): void {
  writeItem('sessionStorage', TOKEN_KEY, null)
}

/** Returns the last known addresses of a cluster's nodes. They may be newer than those in a token. */
export function storedPeers(cluster: string): string[] {
  try {
    const peers: unknown = JSON.parse(readItem('localStorage', PEERS_KEY + cluster) ?? '[]')
    return Array.isArray(peers) ? peers.filter((it) => typeof it === 'string') : []
  } catch {
    return []
  }
}

export function storePeers(cluster: string, peers: readonly string[]): void {
  writeItem('localStorage', PEERS_KEY + cluster, JSON.stringify(peers.slice(0, MAX_PEERS)))
}
