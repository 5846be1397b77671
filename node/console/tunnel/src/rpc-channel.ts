/** Implements the app's end of an RPC channel to the console. */
import { CreditStream } from './credit-stream'
import type { App, FailureCode, HeaderList, RpcCall, RpcEvent, RpcReply } from './protocol'
import { isRecord } from './protocol'

/** Time within which the console answers a ping, in milliseconds; after it the channel is closed. */
const PING_TIMEOUT = 3_000
/** Time after the last message during which a channel counts as alive without a ping, in milliseconds. */
const FRESH = 5_000
/** Interval of the pings on a channel with requests in flight, in milliseconds. */
const PING_INTERVAL = 10_000

/** An HTTP request to the app's service. */
export interface ChannelRequest {
  method: string
  /** Path and query. */
  target: string
  headers: HeaderList
  body: ReadableStream<Uint8Array> | null
  /** Whether the request waits until the app can be reached, instead of failing. */
  hold: boolean
  signal: AbortSignal | null
}

/** An HTTP response of an instance. */
export interface ChannelResponse {
  status: number
  headers: HeaderList
  /** Whether the request carried the credentials that were set for the app. */
  authorized: boolean
  body: ReadableStream<Uint8Array<ArrayBuffer>>
}

/** Reports that a request got no response; the message is for users. `gone`: the console is closed. */
export class RpcError extends Error {
  readonly code: FailureCode | 'gone'

  constructor(code: RpcError['code'], message: string) {
    super(message)
    this.code = code
  }
}

const CONSOLE_CLOSED = 'the console is not open any more'

/** A channel to the console, bound to one service port. */
export class RpcChannel {
  readonly app: App
  #closed = false
  #lastActivity = 0
  #live = true
  #waiters: (() => void)[] = []
  readonly #port: MessagePort
  readonly #streams = new Set<CreditStream>()
  #pingTimer: ReturnType<typeof setInterval> | null = null
  readonly #onClosed: () => void

  constructor(port: MessagePort, app: App, onClosed: (channel: RpcChannel) => void = () => {}) {
    this.app = app
    this.#port = port
    this.#onClosed = () => onClosed(this)
    port.addEventListener('message', (message: MessageEvent<unknown>) => {
      const { data } = message
      if (!isRecord(data)) return
      const { event } = data as Partial<RpcEvent>
      this.#lastActivity = Date.now()
      if (event === 'close') return this.close(false)
      if (event === 'pong') this.#live = data['live'] === true
      for (const wake of this.#waiters.splice(0)) wake()
    })
    port.addEventListener('close', () => this.close(false))
    port.start()
  }

  get closed(): boolean {
    return this.#closed
  }

  /** Tells whether the console is open and connected to the cluster. */
  async reachesCluster(): Promise<boolean> {
    return (await this.#ping()) && this.#live
  }

  /** Tells whether the console is open; closes the channel if it is not. */
  async alive(): Promise<boolean> {
    if (this.#closed) return false
    return Date.now() - this.#lastActivity < FRESH || this.#ping()
  }

  /** Sends a request. The console queues requests above its limit. Errors: `RpcError`. */
  request(request: ChannelRequest): Promise<ChannelResponse> {
    return new Promise((resolve, reject) => {
      if (this.#closed) return reject(new RpcError('gone', CONSOLE_CLOSED))
      const { port1, port2 } = new MessageChannel()
      const onReply = (message: unknown): void => {
        const reply = message as RpcReply
        if (reply.reply === 'head') {
          const { status, headers, authorized } = reply
          resolve({ status, headers, authorized, body: stream.incoming })
        } else {
          reject(new RpcError(reply.code, reply.message))
          stream.abort(reply.message)
        }
      }
      const abort = (): void => stream.abort('the request was aborted')
      const stream = new CreditStream(port1, onReply, () => {
        this.#streams.delete(stream)
        this.#updatePings()
        request.signal?.removeEventListener('abort', abort)
        // Has no effect after a head.
        reject(new RpcError('gone', CONSOLE_CLOSED))
      })
      this.#streams.add(stream)
      this.#updatePings()
      request.signal?.addEventListener('abort', abort)
      if (request.signal?.aborted) return abort()
      const { method, target, headers, body, hold } = request
      this.#call({ op: 'fetch', method, target, headers, body: body !== null, hold, port: port2 })
      void stream.send(body)
    })
  }

  /** Opens a WebSocket at the console, which exchanges `SocketCommand` and `SocketEvent` over `port`. */
  socket(target: string, headers: HeaderList, protocols: string[], port: MessagePort): void {
    this.#call({ op: 'socket', target, headers, protocols, port })
  }

  /** Sets the `Authorization` header of the app's requests that have none. */
  setCredentials(authorization: string): void {
    this.#port.postMessage({ op: 'credentials', authorization } satisfies RpcCall)
  }

  /** Returns the port of another channel to the same service port. */
  fork(): MessagePort {
    const { port1, port2 } = new MessageChannel()
    this.#call({ op: 'fork', port: port2 })
    return port1
  }

  /** Closes the channel and aborts its requests; `notify` tells the console. */
  close(notify = true): void {
    if (this.#closed) return
    if (notify) this.#port.postMessage({ op: 'close' } satisfies RpcCall)
    this.#closed = true
    this.#port.close()
    for (const wake of this.#waiters.splice(0)) wake()
    for (const stream of [...this.#streams]) stream.abort(CONSOLE_CLOSED)
    this.#onClosed()
  }

  async #ping(): Promise<boolean> {
    if (this.#closed) return false
    const sentAt = Date.now()
    let timer
    const activity = new Promise<void>((resolve) => {
      this.#waiters.push(resolve)
      timer = setTimeout(resolve, PING_TIMEOUT)
    })
    this.#port.postMessage({ op: 'ping' } satisfies RpcCall)
    await activity
    clearTimeout(timer)
    if (!this.#closed && this.#lastActivity < sentAt) this.close(false)
    return !this.#closed
  }

  #call(call: RpcCall & { port: MessagePort }): void {
    const { port, ...rest } = call
    this.#port.postMessage(rest, [port])
  }

  #updatePings(): void {
    if (this.#streams.size > 0) this.#pingTimer ??= setInterval(() => void this.#ping(), PING_INTERVAL)
    else if (this.#pingTimer !== null) {
      clearInterval(this.#pingTimer)
      this.#pingTimer = null
    }
  }
}
