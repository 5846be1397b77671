import { peerIdFromString } from '@libp2p/peer-id'

import { fromBase64Url } from '../certificate.js'

/** SHA-256 as a multihash: its code, its length, and then the digest. */
const SHA_256 = [0x12, 0x20] as const
const DIGEST = 32

/** Where a node is dialled with WebRTC. */
export interface Address {
  /** As it was written. */
  text: string
  family: 4 | 6
  host: string
  port: number
  /** SHA-256 of the certificate that the node shows, as a multihash. */
  certhash: Uint8Array
  /** Peer id. */
  peer: string
}

/**
 * Reads `/ip4/A/udp/P/webrtc-direct/certhash/H/p2p/ID` (libp2p's multiaddr); `null`: it is another kind of address. Hashes
 * are SHA-256 in base64url, as the specification asks for at least.
 */
export function parseAddress(text: string): Address | null {
  const found = /^\/ip(4|6)\/([\d.a-fA-F:]+)\/udp\/(\d+)\/webrtc-direct\/certhash\/u([\w-]+)\/p2p\/(\w+)\/?$/.exec(text)
  if (!found) return null
  const [, family, host = '', port, hash = '', id = ''] = found
  const certhash = fromBase64Url(hash)
  const fits = certhash?.length === SHA_256.length + DIGEST && SHA_256.every((byte, i) => certhash[i] === byte)
  if (!fits || Number(port) > 65535) return null
  try {
    const peer = peerIdFromString(id).toString()
    return { text, family: family === '4' ? 4 : 6, host, port: Number(port), certhash, peer }
  } catch {
    return null
  }
}

/** A fingerprint as a session description has it, `AB:CD:…`, of a certhash. */
export function fingerprintOf(certhash: Uint8Array): string {
  const digest = certhash.subarray(SHA_256.length)
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0').toUpperCase()).join(':')
}

/** A certhash of such a fingerprint. Errors: it is not SHA-256. */
export function certhashOf(fingerprint: string): Uint8Array {
  const digest = fingerprint.split(':').map((byte) => Number.parseInt(byte, 16))
  if (digest.length !== DIGEST || digest.some(Number.isNaN)) throw new Error('the fingerprint is not SHA-256')
  return Uint8Array.from([...SHA_256, ...digest])
}
