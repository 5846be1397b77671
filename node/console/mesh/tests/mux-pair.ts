import type { Stream } from '@libp2p/interface'
import { streamPair } from '@libp2p/utils'
import { yamux } from '@libp2p/yamux'

import { Frames } from '../src/frames.js'
import { Mux } from '../src/mux.js'

/** Serves a stream that a client opened. */
export type Serve = (frames: Frames) => Promise<void>

/** Connects a multiplexed client in memory to a node that handles each stream with `serve`. */
export async function muxPair(serve: Serve): Promise<{ mux: Mux; outer: Stream }> {
  const [own, other] = await streamPair({ delay: 0 })
  serveMux(other, serve)
  return { mux: new Mux(own), outer: other }
}

/** Runs the node's end of a multiplexed stream. */
export function serveMux(stream: Stream, serve: Serve): void {
  const muxer = yamux({ enableKeepAlive: false })().createStreamMuxer(stream)
  muxer.addEventListener('stream', ({ detail }) => {
    const frames = new Frames(detail as Stream)
    serve(frames).then(
      () => frames.finish(),
      () => frames.finish(),
    )
  })
}
