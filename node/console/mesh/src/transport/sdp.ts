import { certhashOf, fingerprintOf } from './address.js'
import type { Address } from './address.js'
import { MAX_MESSAGE } from './message.js'

/** What the name of a node in the ICE checks begins with: the second version of the handshake. */
const VERSION = 'libp2p+webrtc+v2/'

/**
 * The answer that a node would give if it could be asked: everything in it is known from its address. Its name carries
 * our password for the node to read from our first packet.
 *
 * @param offer our own description, as the browser wrote it
 * @throws Error: the offer has no password that can be sent so
 */
export function buildAnswer(address: Address, offer: string): string {
  const password = /^a=ice-pwd:([A-Za-z0-9+/]{22,239})\r?$/m.exec(offer)?.[1]
  if (!password) throw new Error('the browser does not tell its ICE password')
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

/** What binds the Noise handshake to this connection: the certificates of both sides. Errors: the offer names none. */
export function noisePrologue(address: Address, offer: string): Uint8Array {
  const fingerprint = /^a=fingerprint:sha-256 ([\dA-Fa-f:]+)\r?$/m.exec(offer)?.[1]
  if (!fingerprint) throw new Error('the browser does not tell its certificate')
  const prefix = new TextEncoder().encode('libp2p-webrtc-noise:')
  return Uint8Array.from([...prefix, ...certhashOf(fingerprint), ...address.certhash])
}
