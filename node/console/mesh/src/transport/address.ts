import { peerIdFromString } from '@libp2p/peer-id'

import { fromBase64Url } from '../certificate.js'

/** Prefix of a SHA-256 multihash: code and length. */
const SHA_256 = [0x12, 0x20] as const
/** Length of a SHA-256 digest, in bytes. */
const DIGEST = 32

/** A WebRTC-direct address of a node. */
export interface Address {
  /** The multiaddr as it was given. */
  text: string
  family: 4 | 6
  host: string
  port: number
  /** SHA-256 multihash of the node's DTLS certificate. */
  certhash: Uint8Array
  /** The node's peer id. */
  peer: string
}

/**
 * Parses a `/ip4/A/udp/P/webrtc-direct/certhash/H/p2p/ID` multiaddr; returns `null` for any other address. The hash must be
 * SHA-256 in base64url, which every implementation has to support.
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

/** Converts a certhash to the fingerprint format of SDP, `AB:CD:…`. */
export function fingerprintOf(certhash: Uint8Array): string {
  const digest = certhash.subarray(SHA_256.length)
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0').toUpperCase()).join(':')
}

/** Converts an SDP fingerprint to a certhash. Errors: it is not SHA-256. */
export function certhashOf(fingerprint: string): Uint8Array {
  const digest = fingerprint.split(':').map((byte) => Number.parseInt(byte, 16))
  if (digest.length !== DIGEST || digest.some(Number.isNaN)) throw new Error('the fingerprint is not SHA-256')
  return Uint8Array.from([...SHA_256, ...digest])
}
