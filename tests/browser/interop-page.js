// Any js-libp2p: the library as it is, with its own WebRTC-direct transport and its own watch over connections.
import { createLibp2p } from 'libp2p'
import { webRTCDirect } from '@libp2p/webrtc'
import { multiaddr } from '@multiformats/multiaddr'

let node, connection

/** Dials; every `pingInterval` ms the library sees whether the connection is alive, and ends one that is not. */
async function dial(address, pingInterval) {
  node = await createLibp2p({
    transports: [webRTCDirect()],
    connectionMonitor: { pingInterval, abortConnectionOnPingFailure: true },
    // It does not dial addresses of this node by itself.
    connectionGater: { denyDialMultiaddr: () => false },
  })
  connection = await node.dial(multiaddr(address))
  return connection.remotePeer.toString()
}

/** One stream of the auth protocol: says hello, hears the node's certificate, and closes it in order. */
async function greet() {
  const stream = await connection.newStream('/vc/auth/1')
  const hello = new TextEncoder().encode('{"version":1}')
  const frame = new Uint8Array(4 + hello.length)
  new DataView(frame.buffer).setUint32(0, hello.length)
  frame.set(hello, 4)
  stream.send(frame)
  let heard = new Uint8Array(0)
  for await (const piece of stream) {
    heard = new Uint8Array([...heard, ...piece.subarray()])
    if (heard.length >= 4 && heard.length >= 4 + new DataView(heard.buffer).getUint32(0)) break
  }
  await stream.close()
  return JSON.parse(new TextDecoder().decode(heard.subarray(4)))
}

globalThis.stock = { dial, greet, status: () => connection.status, stop: () => node.stop() }
