// Stock js-libp2p with its own WebRTC-direct transport and its own connection monitor.
import { createLibp2p } from 'libp2p'
import { webRTCDirect } from '@libp2p/webrtc'
import { multiaddr } from '@multiformats/multiaddr'

let node, connection
let pings = 0

/** Dials; every `pingInterval` ms the library pings the connection, and aborts one that does not answer. */
async function dial(address, pingInterval) {
  node = await createLibp2p({
    transports: [webRTCDirect()],
    connectionMonitor: { pingInterval, abortConnectionOnPingFailure: true },
    // The default gater refuses loopback addresses.
    connectionGater: { denyDialMultiaddr: () => false },
  })
  connection = await node.dial(multiaddr(address))
  const newStream = connection.newStream.bind(connection)
  connection.newStream = (protocols, options) => {
    if (String(protocols).includes('/ping/')) pings += 1
    return newStream(protocols, options)
  }
  return connection.remotePeer.toString()
}

/** Opens one stream of the auth protocol, sends the greeting, receives the node's certificate, and closes the stream. */
async function greet() {
  const stream = await connection.newStream('/vc/auth/1')
  const hello = new TextEncoder().encode('{"version":1}')
  const frame = new Uint8Array(4 + hello.length)
  new DataView(frame.buffer).setUint32(0, hello.length)
  frame.set(hello, 4)
  stream.send(frame)
  let received = new Uint8Array(0)
  for await (const piece of stream) {
    received = new Uint8Array([...received, ...piece.subarray()])
    if (received.length >= 4 && received.length >= 4 + new DataView(received.buffer).getUint32(0)) break
  }
  await stream.close()
  return JSON.parse(new TextDecoder().decode(received.subarray(4)))
}

globalThis.stock = { dial, greet, pings: () => pings, status: () => connection.status, stop: () => node.stop() }
