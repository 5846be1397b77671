import { certhashOf, fingerprintOf } from './address.js'
import type { Address } from './address.js'
import { MAX_MESSAGE } from './message.js'

/** Prefix of the ICE user name fragment in version 2 of the WebRTC-direct handshake. */
const VERSION = 'libp2p+webrtc+v2/'

/**
 * Returns the SDP answer of a node, built from its address without contacting it. Its ICE user name fragment carries the
 * browser's ICE password, which the node reads from the first STUN packet.
 *
 * @param offer the browser's SDP offer, unchanged
 * @throws Error if the offer has no ICE password in the required format
 */
export function buildAnswer(address: Address, offer: string): string {
  const password = /^a=ice-pwd:([A-Za-z0-9+/]{22,239})\r?$/m.exec(offer)?.[1]
  if (!password) throw new Error("the browser's offer has no valid ICE password")
  const name = VERSION + password
  const { family, host, port } = address
  return [
    'v=0',
    `o=- 0 0 IN IP${family} ${host}`,
    's=-',
    't=0 0',
    'a=ice-lite',
    `m=application ${port} UDP/DTLS/SCTP webrtc-datachannel`,
    `c=IN IP${family} ${host}`,
    'a=mid:0',
    'a=ice-options:ice2',
    `a=ice-ufrag:${name}`,
    `a=ice-pwd:${name}`,
    `a=fingerprint:sha-256 ${fingerprintOf(address.certhash)}`,
    'a=setup:passive',
    'a=sctp-port:5000',
    `a=max-message-size:${MAX_MESSAGE}`,
    `a=candidate:1 1 UDP 1 ${host} ${port} typ host`,
    'a=end-of-candidates',
    '',
  ].join('\r\n')
}

/** Returns the prologue that binds the Noise handshake to the DTLS certificates of both sides. Errors: the offer has none. */
export function noisePrologue(address: Address, offer: string): Uint8Array {
  const fingerprint = /^a=fingerprint:sha-256 ([\dA-Fa-f:]+)\r?$/m.exec(offer)?.[1]
  if (!fingerprint) throw new Error("the browser's offer has no SHA-256 certificate fingerprint")
  const prefix = new TextEncoder().encode('libp2p-webrtc-noise:')
  return Uint8Array.from([...prefix, ...certhashOf(fingerprint), ...address.certhash])
}
