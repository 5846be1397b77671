import type { Stream } from '@libp2p/interface'
import { streamPair } from '@libp2p/utils'
import { yamux } from '@libp2p/yamux'

import { Frames } from '../src/frames.js'
import { Mux } from '../src/mux.js'

/** What a node does with a stream that a user opened. */
export type Serve = (frames: Frames) => Promise<void>

/** A client's end of many streams on one, in memory, and the node's end of each as it is opened. */
export async function muxPair(serve: Serve): Promise<{ mux: Mux; outer: Stream }> {
  const [own, other] = await streamPair({ delay: 0 })
  serveMux(other, serve)
  return { mux: new Mux(own), outer: other }
}

/** The node's side of many streams on one. */
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
