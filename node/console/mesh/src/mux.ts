import type { Stream, StreamMuxer } from '@libp2p/interface'
import { yamux } from '@libp2p/yamux'

import { MeshError } from './api.js'
import type { Every } from './api.js'
import { Frames, MAX_FRAME } from './frames.js'

/** Maximum number of open streams. Nodes close connections with more than 256. */
const MAX_STREAMS = 200
/** Maximum receive window of a stream, in bytes: 20 MB/s at a round trip of 100 ms. */
const MAX_WINDOW = 2 * 1024 * 1024
/** Interval of the activity checks, in milliseconds. */
const CHECK_INTERVAL = 250
/** Minimum interval between pings, in milliseconds. */
const PING_INTERVAL = 500
/**
 * Time without received bytes after which a connection is stalled, in milliseconds; pings and a live view cause some
 * every 500 ms.
 */
const STALLED_AFTER = 1000
/**
 * Time without received bytes after which a connection is closed, in milliseconds. It leaves time for SCTP's
 * retransmissions.
 */
const LOST_AFTER = 6000
/** Time between checks after which the page counts as suspended, in milliseconds. Background pages run timers once a second. */
const SUSPENDED_AFTER = 2500

/** Multiplexes streams over one stream with yamux, as its client, and detects stalled connections. */
export class Mux {
  /** Resolves with the reason when the connection has ended. */
  readonly closed: Promise<MeshError>
  /** Smoothed round-trip time (RFC 6298) in milliseconds; `null` before the first measurement. */
  rttMs: number | null = null
  /** Called when the connection stalls and when it recovers. */
  onStalled: (isStalled: boolean) => void = () => {}
  /** Called with the smoothed round-trip time after each ping. */
  onRtt: (rttMs: number) => void = () => {}

  readonly #muxer: StreamMuxer & { ping(): Promise<number> }
  readonly #stream: Stream
  readonly #waiters = new Set<() => void>()
  #open = 0
  #lastActivity = performance.now()
  #isStalled = false
  #lastCheck = performance.now()
  /** Number of checks since the last activity. */
  #checks = 0
  /** Time of the last ping. */
  #lastPing = Number.NEGATIVE_INFINITY
  #isPinging = false
  readonly #stopChecks: () => void
  #close!: (reason: MeshError) => void

  /** Takes over a stream whose peer is a yamux server. `every` runs the checks. */
  constructor(stream: Stream, every: Every = inPage) {
    this.#stream = stream
    stream.addEventListener('message', () => this.#onActivity())
    const create = yamux({
      // The pings below measure the round trip and stop with the connection.
      enableKeepAlive: false,
      maxInboundStreams: 0,
      streamOptions: { maxStreamWindowSize: MAX_WINDOW },
    })
    this.#muxer = create().createStreamMuxer(stream)
    this.closed = new Promise((resolve) => (this.#close = resolve))
    void this.closed.then(() => this.#waiters.forEach((wake) => wake()))
    stream.addEventListener('close', () => this.end(new MeshError('lost', 'the node closed the connection')))
    this.#stopChecks = every(() => this.#check(), CHECK_INTERVAL)
    this.#ping()
  }

  /** Whether no stream is open. */
  get isIdle(): boolean {
    return this.#open === 0
  }

  /** Opens a stream; waits while `MAX_STREAMS` are open. Errors: `MeshError` if the connection has ended or `signal` aborts. */
  async open(signal?: AbortSignal): Promise<Frames> {
    while (this.#open >= MAX_STREAMS && this.#muxer.status === 'open' && !signal?.aborted) await this.#streamSlot(signal)
    if (signal?.aborted) throw aborted(signal)
    if (this.#muxer.status !== 'open') throw new MeshError('lost', 'the connection to the node was lost')
    this.#open += 1
    const stream = await this.#muxer.createStream()
    stream.addEventListener('close', () => {
      this.#open -= 1
      const [next] = this.#waiters
      next?.()
    })
    return new Frames(stream, MAX_FRAME, () => this.#muxer.status === 'open')
  }

  /** Ends the connection and all streams. */
  end(reason: MeshError): void {
    this.#stopChecks()
    this.#close(reason)
    this.#muxer.abort(reason)
    this.#stream.abort(reason)
  }

  #streamSlot(signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        this.#waiters.delete(wake)
        signal?.removeEventListener('abort', wake)
        resolve()
      }
      this.#waiters.add(wake)
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
    // Nothing was received while the page was suspended, so the timeout starts again.
    if (now - this.#lastCheck > SUSPENDED_AFTER) this.#lastActivity = now
    this.#lastCheck = now
    this.#checks += 1
    // Bytes that arrived while the page was busy are processed after this check.
    const silent = this.#checks > 1 ? now - this.#lastActivity : 0
    if (silent > LOST_AFTER) return this.end(new MeshError('lost', 'the node stopped answering'))
    if (silent > STALLED_AFTER && !this.#isStalled) this.onStalled((this.#isStalled = true))
    this.#ping()
  }

  #ping(): void {
    // One at a time: behind a large download a pong may take a while.
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

/** Runs a timer of the page. */
function inPage(callback: () => void, interval: number): () => void {
  const timer = setInterval(callback, interval)
  return () => clearInterval(timer)
}

/** Returns the error of a request whose signal aborted. */
export function aborted(signal: AbortSignal): MeshError {
  return new MeshError('aborted', 'the request was aborted', { cause: signal.reason })
}
