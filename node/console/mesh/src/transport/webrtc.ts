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

/** The protocol that users speak. */
const AUTH_PROTOCOL = '/vc/auth/1'

/**
 * Dials a node: WebRTC-direct of libp2p, version 2, in which the browser's own description is left as it is. Whoever
 * answers has proven that he is the peer of the address.
 *
 * A whole js-libp2p node is not needed for one stream: this takes its Noise and its multistream-select.
 */
export async function dial(text: string, signal: AbortSignal): Promise<Connection> {
  const address = parseAddress(text)
  if (!address) throw new MeshError('failed', `not an address for browsers: ${text}`)
  // A new one each time, so that nobody on the way can tell that it was the same browser.
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
      // Asked for its muxers only, which are not negotiated here.
      upgrader: { getStreamMuxers: () => new Map() } as unknown as Upgrader,
    })
    // The node begins, though we have dialled: so it is specified.
    const proof = new ChannelStream(handshake, log)
    const remotePeer = peerIdFromString(address.peer)
    const secured = await secure.secureInbound(proof, { remotePeer, signal, skipStreamMuxerNegotiation: true })
    if (!secured.remotePeer.equals(remotePeer)) throw new MeshError('failed', 'another node answered')
    handshake.close()

    const channel = connection.createDataChannel('')
    await opened(channel, signal)
    const stream = new ChannelStream(channel, log)
    await select(stream, AUTH_PROTOCOL, { signal })
    connection.addEventListener('connectionstatechange', () => {
      if (connection.connectionState === 'failed') stream.abort(new Error('the connection broke'))
    })
    return { stream, peer: address.peer, address: text, close: () => connection.close() }
  } catch (error) {
    connection.close()
    throw error
  }
}
