import { noise } from '@chainsafe/libp2p-noise'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

import type { Inside } from '../src/mesh.js'

/** Nodes over TCP, with a whole js-libp2p: what the library does is the same over any transport. */
export function overTcp(): Inside {
  return {
    peerOf: (address) => /^\/ip4\/[\d.]+\/tcp\/\d+\/p2p\/(\w+)$/.exec(address)?.[1] ?? null,
    async dial(address, signal) {
      const own = await createLibp2p({
        transports: [tcp()],
        connectionEncrypters: [noise()],
        streamMuxers: [yamux()],
        connectionMonitor: { enabled: false },
      })
      const close = (): void => void own.stop()
      try {
        const stream = await own.dialProtocol(multiaddr(address), '/vc/auth/1', { signal })
        return { stream, peer: address.split('/p2p/')[1] ?? '', address, close }
      } catch (error) {
        close()
        throw error
      }
    },
  }
}
