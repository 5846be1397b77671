import { noise } from '@chainsafe/libp2p-noise'
import { generateKeyPair } from '@libp2p/crypto/keys'
import type { Upgrader } from '@libp2p/interface'
import { defaultLogger } from '@libp2p/logger'
import { select } from '@libp2p/multistream-select'
import { peerIdFromPrivateKey, peerIdFromString } from '@libp2p/peer-id'

import { MeshError } from '../api.js'
import type { Connection } from '../session.js'
import { parseAddress } from './address.js'
import { ChannelStream, opened } from './channel-stream.js'
import { buildAnswer, noisePrologue } from './sdp.js'

/** The protocol of user sessions. */
const AUTH_PROTOCOL = '/vc/auth/1'

/**
 * Dials a node with version 2 of libp2p's WebRTC-direct, which does not modify the browser's SDP offer, and authenticates it
 * as the peer of the address. Errors: `MeshError` or `signal`'s reason.
 *
 * Uses js-libp2p's Noise and multistream-select without its node, which one stream does not need.
 */
export async function dial(text: string, signal: AbortSignal): Promise<Connection> {
  const address = parseAddress(text)
  if (!address) throw new MeshError('failed', `not a WebRTC-direct address: ${text}`)
  // A new certificate per connection, so that observers cannot link connections of one browser.
  const certificate = await RTCPeerConnection.generateCertificate({ name: 'ECDSA', namedCurve: 'P-256' } as EcKeyGenParams)
  const connection = new RTCPeerConnection({ certificates: [certificate] })
  try {
    const handshake = connection.createDataChannel('', { negotiated: true, id: 0 })
    await connection.setLocalDescription(await connection.createOffer())
    const offer = connection.localDescription?.sdp ?? ''
    await connection.setRemoteDescription({ type: 'answer', sdp: buildAnswer(address, offer) })
    await opened(handshake, signal)

    const privateKey = await generateKeyPair('Ed25519')
    const logger = defaultLogger()
    const log = logger.forComponent('vc-mesh')
    const secure = noise({ prologueBytes: noisePrologue(address, offer) })({
      privateKey,
      peerId: peerIdFromPrivateKey(privateKey),
      logger,
      // Used for stream muxers only, which are not negotiated here.
      upgrader: { getStreamMuxers: () => new Map() } as unknown as Upgrader,
    })
    // The specification makes the dialled node the Noise initiator.
    const noiseStream = new ChannelStream(handshake, log)
    const remotePeer = peerIdFromString(address.peer)
    const secured = await secure.secureInbound(noiseStream, { remotePeer, signal, skipStreamMuxerNegotiation: true })
    if (!secured.remotePeer.equals(remotePeer)) throw new MeshError('failed', 'the node that answered has another peer id than the address')
    handshake.close()

    const channel = connection.createDataChannel('')
    await opened(channel, signal)
    const stream = new ChannelStream(channel, log)
    await select(stream, AUTH_PROTOCOL, { signal })
    connection.addEventListener('connectionstatechange', () => {
      if (connection.connectionState === 'failed') stream.abort(new Error('the WebRTC connection failed'))
    })
    return { stream, peer: address.peer, address: text, close: () => connection.close() }
  } catch (error) {
    connection.close()
    throw error
  }
}
