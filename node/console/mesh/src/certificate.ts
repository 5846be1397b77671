import { peerIdFromString } from '@libp2p/peer-id'

import { MeshError } from './api.js'
import type { TokenClaims } from './api.js'
import type { NodeRole } from './types.js'

/** Maximum length of a token or certificate, in characters. */
const MAX_TOKEN = 8 * 1024

/** The claims of a token or certificate, as in `protocol/src/token.rs`. */
export interface Claims extends TokenClaims {
  iss: string
  peers: string[]
}

/** Decodes the claims of a token without checking its signature; returns `null` if it is malformed. */
export function decodeClaims(token: string): Claims | null {
  const payload = token.length > MAX_TOKEN ? undefined : token.split('.')[1]
  const claims = payload === undefined ? null : json(payload)
  if (!isRecord(claims) || typeof claims.aud !== 'string' || typeof claims.sub !== 'string') return null
  return {
    aud: claims.aud,
    sub: claims.sub,
    iss: typeof claims.iss === 'string' ? claims.iss : '',
    exp: typeof claims.exp === 'number' ? claims.exp : 0,
    scope: claims.scope,
    peers: Array.isArray(claims.peers) ? claims.peers.filter((peer) => typeof peer === 'string') : [],
    ...(Array.isArray(claims.projects) && { projects: claims.projects.filter((it) => typeof it === 'string') }),
  }
}

/**
 * Verifies that a membership certificate of this peer is signed by the cluster's root key, which the cluster id contains.
 * Certificates do not expire.
 *
 * @throws MeshError `failed` if it is not
 */
export async function verifyMember(certificate: string, cluster: string, peer: string): Promise<NodeRole> {
  const [header = '', payload = '', signature = '', ...more] = certificate.split('.')
  const [fields, claims, bytes] = [json(header), decodeClaims(certificate), fromBase64Url(signature)]
  const role = isRecord(claims?.scope) ? claims.scope['node:member'] : undefined
  const fits =
    more.length === 0 &&
    isRecord(fields) &&
    fields.alg === 'EdDSA' &&
    claims?.aud === cluster &&
    claims.iss === cluster &&
    claims.sub === peer
  if (!fits || !bytes || (role !== 'server' && role !== 'worker')) throw notAMember()
  if (!(await signedBy(cluster, `${header}.${payload}`, bytes))) throw notAMember()
  return role
}

async function signedBy(cluster: string, text: string, signature: Uint8Array): Promise<boolean> {
  try {
    const key = peerIdFromString(cluster).publicKey
    return key?.type === 'Ed25519' && (await key.verify(new TextEncoder().encode(text), signature))
  } catch {
    return false
  }
}

function notAMember(): MeshError {
  return new MeshError('failed', 'the node that answered is not a member of this cluster')
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}

function json(part: string): unknown {
  const bytes = fromBase64Url(part)
  try {
    return bytes && JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch {
    return null
  }
}

/** Decodes unpadded base64url; returns `null` if it is malformed. */
export function fromBase64Url(text: string): Uint8Array | null {
  if (!/^[\w-]+$/.test(text)) return null
  try {
    const binary = atob(text.replaceAll('-', '+').replaceAll('_', '/'))
    return Uint8Array.from(binary, (character) => character.charCodeAt(0))
  } catch {
    return null
  }
}
