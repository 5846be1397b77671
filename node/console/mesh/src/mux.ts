import type { Stream, StreamMuxer } from '@libp2p/interface'
import { yamux } from '@libp2p/yamux'

import { MeshError } from './api.js'
import { Frames, MAX_FRAME } from './frames.js'

/** Streams at once. A node ends the connection with more than 256. */
const MAX_STREAMS = 200
/** The most that a stream may have under way, in bytes: enough for 20 MB/s over 100 ms. */
const MAX_WINDOW = 2 * 1024 * 1024
/** How often somebody looks whether the node has said anything. */
const LOOK_EVERY = 250
/** How often the node is asked for a sign of life. */
const PING_EVERY = 500
/** A node that says nothing for so long is quiet: a live view alone says something every 500 ms. */
const QUIET = 1000
/** After so long it is gone, and what was asked of it is lost. Before, SCTP may be busy to send again what was lost. */
const GONE = 6000
/** A page that has not looked for so long slept, and has not listened. One in the background looks once a second. */
const SLEPT = 2500

/** Many streams on one: yamux, as its client. */
export class Mux {
  /** Resolved when the connection is over, with the reason. */
  readonly closed: Promise<MeshError>
  /** The round trip, smoothed as TCP does it (RFC 6298), milliseconds; `null`: not measured yet. */
  rttMs: number | null = null
  /** Called when the node becomes quiet, and when it is heard again. */
  onQuiet: (isQuiet: boolean) => void = () => {}
  /** Called with each round trip. */
  onRtt: (rttMs: number) => void = () => {}

  readonly #muxer: StreamMuxer & { ping(): Promise<number> }
  readonly #stream: Stream
  readonly #waiting = new Set<() => void>()
  #open = 0
  #heard = performance.now()
  #isQuiet = false
  #looked = performance.now()
  /** Looks since the node was heard. */
  #looks = 0
  /** When the last ping was sent, and whether its answer is still on the way. */
  #pinged = Number.NEGATIVE_INFINITY
  #isPinging = false
  readonly #timer: ReturnType<typeof setInterval>
  #close!: (reason: MeshError) => void

  /** Takes a stream whose other side is a yamux server. */
  constructor(stream: Stream) {
    this.#stream = stream
    stream.addEventListener('message', () => this.#hear())
    const create = yamux({
      // Pings here say more, and end with the connection.
      enableKeepAlive: false,
      maxInboundStreams: 0,
      streamOptions: { maxStreamWindowSize: MAX_WINDOW },
    })
    this.#muxer = create().createStreamMuxer(stream)
    this.closed = new Promise((resolve) => (this.#close = resolve))
    void this.closed.then(() => this.#waiting.forEach((wake) => wake()))
    stream.addEventListener('close', () => this.end(new MeshError('lost', 'the node closed the connection')))
    this.#timer = setInterval(() => this.#look(), LOOK_EVERY)
    this.#ping()
  }

  /** Whether nothing is asked here. */
  get isIdle(): boolean {
    return this.#open === 0
  }

  /** Opens a stream; waits while too many are open. Errors: the connection is over, or `signal`. */
  async open(signal?: AbortSignal): Promise<Frames> {
    while (this.#open >= MAX_STREAMS && this.#muxer.status === 'open' && !signal?.aborted) await this.#room(signal)
    if (signal?.aborted) throw aborted(signal)
    if (this.#muxer.status !== 'open') throw new MeshError('lost', 'the connection to the node was lost')
    this.#open += 1
    const stream = await this.#muxer.createStream()
    stream.addEventListener('close', () => {
      this.#open -= 1
      const [next] = this.#waiting
      next?.()
    })
    return new Frames(stream, MAX_FRAME, () => this.#muxer.status === 'open')
  }

  /** Ends the connection and everything on it. */
  end(reason: MeshError): void {
    clearInterval(this.#timer)
    this.#close(reason)
    this.#muxer.abort(reason)
    this.#stream.abort(reason)
  }

  #room(signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        this.#waiting.delete(wake)
        signal?.removeEventListener('abort', wake)
        resolve()
      }
      this.#waiting.add(wake)
      signal?.addEventListener('abort', wake)
    })
  }

  #hear(): void {
    this.#heard = performance.now()
    this.#looks = 0
    if (this.#isQuiet) this.onQuiet((this.#isQuiet = false))
  }

  #look(): void {
    const now = performance.now()
    // The node gets its time again.
    if (now - this.#looked > SLEPT) this.#heard = now
    this.#looked = now
    this.#looks += 1
    // What came while the page was busy is heard after this look.
    const silent = this.#looks > 1 ? now - this.#heard : 0
    if (silent > GONE) return this.end(new MeshError('lost', 'the node does not answer any more'))
    if (silent > QUIET && !this.#isQuiet) this.onQuiet((this.#isQuiet = true))
    this.#ping()
  }

  #ping(): void {
    // One at a time: behind a large download an answer may be on its way for a while.
    const at = performance.now()
    if (this.#isPinging || at - this.#pinged < PING_EVERY) return
    this.#pinged = at
    this.#isPinging = true
    this.#muxer.ping().then(
      () => {
        this.#isPinging = false
        const sample = performance.now() - at
        this.rttMs = this.rttMs === null ? sample : this.rttMs + (sample - this.rttMs) / 8
        this.onRtt(this.rttMs)
      },
      () => (this.#isPinging = false),
    )
  }
}

/** What an aborted request fails with. */
export function aborted(signal: AbortSignal): MeshError {
  return new MeshError('aborted', 'the request was aborted', { cause: signal.reason })
}
