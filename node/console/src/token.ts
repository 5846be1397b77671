// What a user token says of itself. Nothing is verified here: the nodes do that.

import type { UserRole } from 'vc-mesh'

export interface Claims {
  user: string
  role: UserRole
  cluster: string
  /** Milliseconds since the epoch. */
  expires: number
  /** Addresses of nodes that a browser can dial. */
  peers: string[]
}

/** Whom a token is for, whether or not it can be used. */
export interface Owner {
  user: string
  cluster: string
}

export type TokenReading = { claims: Claims } | { problem: string }

/** The last time that a `Date` can be, milliseconds. */
const LAST_TIME = 8.64e15

const ASK_FOR_ONE = "Ask for one with 'vc token create --user NAME'."

/**
 * Reads a token, or says in a line why it cannot be used and what to do. `more`: addresses to try beside the token's;
 * `known`: those that are known of a cluster; `now`: milliseconds since the epoch.
 */
export function readToken(
  token: string,
  more: readonly string[],
  now: number,
  known: (cluster: string) => readonly string[],
): TokenReading {
  const payload = payloadOf(token)
  if (!payload) return { problem: `This is not a token: it has three long parts with dots between. ${ASK_FOR_ONE}` }
  const { sub, exp, aud, scope, peers } = payload
  const role = roleIn(scope)
  if (!role) return { problem: `This token is for nodes; the console needs a user's. ${ASK_FOR_ONE}` }
  if (typeof sub !== 'string' || typeof exp !== 'number' || exp * 1000 > LAST_TIME || typeof aud !== 'string') {
    return { problem: `This is not a token of a Virtual Cluster. ${ASK_FOR_ONE}` }
  }
  if (exp * 1000 <= now) {
    return { problem: `This token of ${sub} has expired. Ask for a new one with 'vc token create --user ${sub}'.` }
  }
  const listed = Array.isArray(peers) ? peers.filter((it) => typeof it === 'string') : []
  const dialable = [...new Set([...more, ...listed, ...known(aud)])].filter(isDialable)
  if (dialable.length === 0) {
    return {
      problem:
        'This token names no node that a browser can dial (an address with /webrtc-direct/). ' +
        `Make one on a current node: 'vc token create --user ${sub}', or run 'vc console'.`,
    }
  }
  return { claims: { user: sub, role, cluster: aud, expires: exp * 1000, peers: dialable } }
}

/** Whose a token is by its own words; `null`: nobody's. */
export function ownerOf(token: string): Owner | null {
  const { sub, aud } = payloadOf(token) ?? {}
  return typeof sub === 'string' && typeof aud === 'string' ? { user: sub, cluster: aud } : null
}

/** A token without the spaces and line breaks that terminals and mails put into it: it has none itself. */
export function bareToken(token: string): string {
  return token.replace(/\s+/g, '')
}

/** Whether a browser can dial a multiaddr. */
export function isDialable(address: string): boolean {
  return address.includes('/webrtc-direct/')
}

function payloadOf(token: string): Record<string, unknown> | null {
  const parts = bareToken(token).split('.')
  if (parts.length !== 3 || !parts[1]) return null
  try {
    const bytes = Uint8Array.from(atob(parts[1].replaceAll('-', '+').replaceAll('_', '/')), (it) => it.charCodeAt(0))
    const value: unknown = JSON.parse(new TextDecoder().decode(bytes))
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : null
  } catch {
    return null
  }
}

function roleIn(scope: unknown): UserRole | null {
  if (typeof scope !== 'object' || scope === null || !('user' in scope)) return null
  const role = scope.user
  return role === 'viewer' || role === 'deployer' || role === 'admin' ? role : null
}
