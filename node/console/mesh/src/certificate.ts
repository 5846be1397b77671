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
  /** The certificate of the issuer, or the endorsement of the signing key that is the issuer. */
  issuer?: string
  /** In an endorsement: signatures of the keys before it, the last one first. */
  succession: { key: string; signature: string }[]
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
    ...(typeof claims.issuer === 'string' ? { issuer: claims.issuer } : {}),
    succession: Array.isArray(claims.succession) ? claims.succession.filter(isLink) : [],
  }
}

/**
 * Verifies that a membership certificate of this peer leads to the cluster's root key, which the cluster id contains: the root has
 * signed it, or has endorsed the signing key that did. Certificates do not expire.
 *
 * @throws MeshError `failed` if it does not
 */
export async function verifyMember(certificate: string, cluster: string, peer: string): Promise<NodeRole> {
  const claims = await verify(certificate, cluster)
  const role = isRecord(claims.scope) ? claims.scope['node:member'] : undefined
  if (claims.sub !== peer || (role !== 'server' && role !== 'worker')) throw notAMember()
  if (claims.iss !== cluster && (await endorsement(claims, cluster))?.sub !== claims.iss) throw notAMember()
  return role
}

/**
 * Verifies that a node with this valid certificate may get a token: the signing key of its certificate is the one that the token
 * depends on, or follows from it. A server that was removed knows the root key, but no signing key that was made since.
 *
 * @throws MeshError `failed` if it may not
 */
export async function verifySuccession(certificate: string, cluster: string, peer: string, token: string): Promise<void> {
  const issued = decodeClaims(token)
  if (issued?.iss === peer) return
  const issuer = issued?.issuer === undefined ? null : decodeClaims(issued.issuer)
  const known = issuer && (await endorsement(issuer, cluster))
  if (!known) return
  const member = decodeClaims(certificate)
  const found = member && (await endorsement(member, cluster))
  // The root key signs what it likes beside the endorsement of another key.
  let next = found?.sub === member?.iss ? found?.sub : undefined
  for (const link of found?.succession ?? []) {
    if (next === undefined || next === known.sub) break
    const signature = fromBase64Url(link.signature)
    const valid = signature !== null && (await signedBy(link.key, `vc successor 1\0${cluster} ${next}`, signature))
    next = valid ? link.key : undefined
  }
  if (next === undefined || next !== known.sub) {
    throw new MeshError('failed', "the node has no certificate of the signing key that the token depends on")
  }
}

/** Returns the verified endorsement of the signing key that has issued a certificate; `null` if the root has. */
async function endorsement(certificate: Claims, cluster: string): Promise<Claims | null> {
  if (certificate.issuer === undefined) return null
  const claims = await verify(certificate.issuer, cluster)
  const epoch = isRecord(claims.scope) ? claims.scope['signing'] : undefined
  if (claims.iss !== cluster || typeof epoch !== 'number' || epoch < 1) throw notAMember()
  return claims
}

/** Returns the claims of a certificate or endorsement of this cluster, which its issuer has signed. */
async function verify(token: string, cluster: string): Promise<Claims> {
  const [header = '', payload = '', signature = '', ...more] = token.split('.')
  const [fields, claims, bytes] = [json(header), decodeClaims(token), fromBase64Url(signature)]
  const fits = more.length === 0 && isRecord(fields) && fields.alg === 'EdDSA' && claims?.aud === cluster
  if (!fits || !bytes || !(await signedBy(claims.iss, `${header}.${payload}`, bytes))) throw notAMember()
  return claims
}

async function signedBy(peer: string, text: string, signature: Uint8Array): Promise<boolean> {
  try {
    const key = peerIdFromString(peer).publicKey
    return key?.type === 'Ed25519' && (await key.verify(new TextEncoder().encode(text), signature))
  } catch {
    return false
  }
}

function notAMember(): MeshError {
  return new MeshError('failed', 'the node that answered is not a member of this cluster')
}

function isLink(value: unknown): value is { key: string; signature: string } {
  return isRecord(value) && typeof value.key === 'string' && typeof value.signature === 'string'
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
