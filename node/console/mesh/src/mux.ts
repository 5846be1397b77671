import type { Stream, StreamMuxer } from '@libp2p/interface'
import { yamux } from '@libp2p/yamux'

import { MeshError } from './api.js'
import { Frames, MAX_FRAME } from './frames.js'

/** Streams at once. A node ends the connection with more than 256. */
const MAX_STREAMS = 200
/** The most that a stream may have under way, in bytes: enough for 20 MB/s over 100 ms. */
const MAX_WINDOW = 2 * 1024 * 1024
/** How often somebody looks whether the node has said anything. */
const CHECK_INTERVAL = 250
/** How often the node is asked for a sign of life. */
const PING_INTERVAL = 500
/** A node that says nothing for so long is quiet: a live view alone says something every 500 ms. */
const STALLED_AFTER = 1000
/** After so long it is gone, and what was asked of it is lost. Before, SCTP may be busy to send again what was lost. */
const LOST_AFTER = 6000
/** A page that has not looked for so long slept, and has not listened. One in the background looks once a second. */
const SUSPENDED_AFTER = 2500

/** Many streams on one: yamux, as its client. */
export class Mux {
  /** Resolved when the connection is over, with the reason. */
  readonly closed: Promise<MeshError>
  /** The round trip, smoothed as TCP does it (RFC 6298), milliseconds; `null`: not measured yet. */
  rttMs: number | null = null
  /** Called when the node becomes quiet, and when it is heard again. */
  onStalled: (isStalled: boolean) => void = () => {}
  /** Called with each round trip. */
  onRtt: (rttMs: number) => void = () => {}

  readonly #muxer: StreamMuxer & { ping(): Promise<number> }
  readonly #stream: Stream
  readonly #waiting = new Set<() => void>()
  #open = 0
  #lastActivity = performance.now()
  #isStalled = false
  #lastCheck = performance.now()
  /** Looks since the node was heard. */
  #checks = 0
  /** When the last ping was sent, and whether its answer is still on the way. */
  #lastPing = Number.NEGATIVE_INFINITY
  #isPinging = false
  readonly #timer: ReturnType<typeof setInterval>
  #close!: (reason: MeshError) => void

  /** Takes a stream whose other side is a yamux server. */
  constructor(stream: Stream) {
    this.#stream = stream
    stream.addEventListener('message', () => this.#onActivity())
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
    this.#timer = setInterval(() => this.#check(), CHECK_INTERVAL)
    this.#ping()
  }

  /** Whether nothing is asked here. */
  get isIdle(): boolean {
    return this.#open === 0
  }

  /** Opens a stream; waits while too many are open. Errors: the connection is over, or `signal`. */
  async open(signal?: AbortSignal): Promise<Frames> {
    while (this.#open >= MAX_STREAMS && this.#muxer.status === 'open' && !signal?.aborted) await this.#streamSlot(signal)
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

  #streamSlot(signal?: AbortSignal): Promise<void> {
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

  #onActivity(): void {
    this.#lastActivity = performance.now()
    this.#checks = 0
    if (this.#isStalled) this.onStalled((this.#isStalled = false))
  }

  #check(): void {
    const now = performance.now()
    // The node gets its time again.
    if (now - this.#lastCheck > SUSPENDED_AFTER) this.#lastActivity = now
    this.#lastCheck = now
    this.#checks += 1
    // What came while the page was busy is heard after this look.
    const silent = this.#checks > 1 ? now - this.#lastActivity : 0
    if (silent > LOST_AFTER) return this.end(new MeshError('lost', 'the node does not answer any more'))
    if (silent > STALLED_AFTER && !this.#isStalled) this.onStalled((this.#isStalled = true))
    this.#ping()
  }

  #ping(): void {
    // One at a time: behind a large download an answer may be on its way for a while.
    const at = performance.now()
    if (this.#isPinging || at - this.#lastPing < PING_INTERVAL) return
    this.#lastPing = at
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
