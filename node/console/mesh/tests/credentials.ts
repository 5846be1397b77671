import { generateKeyPair } from '@libp2p/crypto/keys'
import type { Ed25519PrivateKey } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'

/** A key pair and its peer id, of a cluster's root or a node. */
export interface Identity {
  key: Ed25519PrivateKey
  id: string
}

/** Generates an identity. */
export async function identity(): Promise<Identity> {
  const key = await generateKeyPair('Ed25519')
  return { key, id: peerIdFromPrivateKey(key).toString() }
}

function part(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url')
}

/** Signs a JSON Web Token. */
export async function jwt(signer: Identity, claims: object, header: object = { typ: 'JWT', alg: 'EdDSA' }): Promise<string> {
  const text = `${part(header)}.${part(claims)}`
  return `${text}.${Buffer.from(await signer.key.sign(new TextEncoder().encode(text))).toString('base64url')}`
}

/** Returns the claims of a membership certificate. */
export function memberClaims(root: Identity, member: Identity, more: object = {}): object {
  return { aud: root.id, iss: root.id, sub: member.id, jti: 'member', iat: 1, scope: { 'node:member': 'server' }, ...more }
}

/** Endorses a signing key; `before` is the one before it. */
export async function endorsement(root: Identity, key: Identity, epoch: number, before?: Identity): Promise<string> {
  const text = new TextEncoder().encode(`vc successor 1\0${root.id} ${key.id}`)
  const signature = before && Buffer.from(await before.key.sign(text)).toString('base64url')
  const succession = before === undefined ? [] : [{ key: before.id, signature }]
  return await jwt(root, { aud: root.id, iss: root.id, sub: key.id, jti: 'signing', iat: 1, scope: { signing: epoch }, succession })
}

/** Signs a user token, which clients do not verify. */
export async function userToken(root: Identity, peers: string[]): Promise<string> {
  return await jwt(root, { aud: root.id, iss: root.id, sub: 'ada', exp: 4e9, scope: { user: 'admin' }, peers })
}
