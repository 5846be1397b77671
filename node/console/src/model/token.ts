// Parses user tokens (JWTs). Signatures are verified by the nodes, not here.

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

/** The user and cluster that a token is for, even if it is expired. */
export interface TokenSubject {
  user: string
  cluster: string
}

export type ParsedToken = { claims: Claims } | { problem: string }

/** The largest time that a `Date` can hold, milliseconds since the epoch. */
const LAST_TIME = 8.64e15

const HOW_TO_CREATE = "Create one with 'vc token create --user NAME'."

/**
 * Parses a token. Returns its claims, or a problem with its fix for the user.
 *
 * @param more addresses to dial beside those in the token
 * @param now milliseconds since the epoch
 * @param known returns the stored addresses of a cluster
 */
export function parseToken(
  token: string,
  more: readonly string[],
  now: number,
  known: (cluster: string) => readonly string[],
): ParsedToken {
  const payload = payloadOf(token)
  if (!payload) return { problem: `This is not a token: a token has three parts separated by dots. ${HOW_TO_CREATE}` }
  const { sub, exp, aud, scope, peers } = payload
  const role = roleIn(scope)
  if (!role) return { problem: `This token is for nodes; the console needs a user token. ${HOW_TO_CREATE}` }
  if (typeof sub !== 'string' || typeof exp !== 'number' || exp * 1000 > LAST_TIME || typeof aud !== 'string') {
    return { problem: `This is not a token of a Virtual Cluster. ${HOW_TO_CREATE}` }
  }
  if (exp * 1000 <= now) {
    return { problem: `The token of ${sub} has expired. Create a new one with 'vc token create --user ${sub}'.` }
  }
  const listed = Array.isArray(peers) ? peers.filter((it) => typeof it === 'string') : []
  const dialable = [...new Set([...more, ...listed, ...known(aud)])].filter(isDialable)
  if (dialable.length === 0) {
    return {
      problem:
        'This token contains no node that a browser can dial (an address with /webrtc-direct/). ' +
        `Create one on an up-to-date node with 'vc token create --user ${sub}', or run 'vc console'.`,
    }
  }
  return { claims: { user: sub, role, cluster: aud, expires: exp * 1000, peers: dialable } }
}

/** Returns the user and cluster that a token names; `null` if it is not a token. */
export function readSubject(token: string): TokenSubject | null {
  const { sub, aud } = payloadOf(token) ?? {}
  return typeof sub === 'string' && typeof aud === 'string' ? { user: sub, cluster: aud } : null
}

/** Removes the spaces and line breaks that terminals and mail clients insert into a token. */
export function stripWhitespace(token: string): string {
  return token.replace(/\s+/g, '')
}

/** Returns whether a browser can dial a multiaddr. */
export function isDialable(address: string): boolean {
  return address.includes('/webrtc-direct/')
}

function payloadOf(token: string): Record<string, unknown> | null {
  const parts = stripWhitespace(token).split('.')
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
