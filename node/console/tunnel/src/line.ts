/** An app's end of a line to the console. */
import { Flow } from './flow'
import type { Answer, App, Ask, FailureCode, HeaderList, Told } from './protocol'
import { isRecord } from './protocol'

/** The console answers a ping in so long, milliseconds, or it is not there. */
const PING_TIMEOUT = 3_000
/** A line that was heard within so long is taken to be alive. */
const FRESH = 5_000
/** So often is a line asked on which an answer is awaited. */
const PING_EVERY = 10_000

export interface OutgoingRequest {
  method: string
  /** Path and query. */
  target: string
  headers: HeaderList
  body: ReadableStream<Uint8Array> | null
  signal: AbortSignal | null
}

export interface Incoming {
  status: number
  headers: HeaderList
  body: ReadableStream<Uint8Array<ArrayBuffer>>
}

/** A request was not answered. The message is for people. */
export class LineError extends Error {
  readonly code: FailureCode | 'gone'

  constructor(code: LineError['code'], message: string) {
    super(message)
    this.code = code
  }
}

const GONE = 'the console is not open any more'

export class Line {
  readonly app: App
  #closed = false
  #heard = 0
  #live = true
  #waiting: (() => void)[] = []
  readonly #port: MessagePort
  readonly #flows = new Set<Flow>()
  #watch: ReturnType<typeof setInterval> | null = null
  readonly #onClosed: () => void

  constructor(port: MessagePort, app: App, onClosed: (line: Line) => void = () => {}) {
    this.app = app
    this.#port = port
    this.#onClosed = () => onClosed(this)
    port.addEventListener('message', (event: MessageEvent<unknown>) => {
      const told = event.data
      if (!isRecord(told)) return
      const { told: what } = told as Partial<Told>
      this.#heard = Date.now()
      if (what === 'bye') return this.close(false)
      if (what === 'pong') this.#live = told['live'] === true
      for (const wake of this.#waiting.splice(0)) wake()
    })
    port.addEventListener('close', () => this.close(false))
    port.start()
  }

  get closed(): boolean {
    return this.#closed
  }

  /** Whether the console is there, and the cluster within its reach. */
  async reachesCluster(): Promise<boolean> {
    return (await this.#ping()) && this.#live
  }

  /** Whether the console is there. A line on which it is not is closed. */
  async alive(): Promise<boolean> {
    if (this.#closed) return false
    return Date.now() - this.#heard < FRESH || this.#ping()
  }

  /** One request. Errors: `LineError`. Requests over the console's limit wait there, up to another. */
  request(outgoing: OutgoingRequest): Promise<Incoming> {
    return new Promise((resolve, reject) => {
      if (this.#closed) return reject(new LineError('gone', GONE))
      const { port1, port2 } = new MessageChannel()
      const onAnswer = (message: unknown): void => {
        const answer = message as Answer
        if (answer.answer === 'head') {
          resolve({ status: answer.status, headers: answer.headers, body: flow.incoming })
        } else {
          reject(new LineError(answer.code, answer.message))
          flow.abort(answer.message)
        }
      }
      const abort = (): void => flow.abort('not wanted any more')
      const flow = new Flow(port1, onAnswer, () => {
        this.#flows.delete(flow)
        this.#watchFlows()
        outgoing.signal?.removeEventListener('abort', abort)
        // Without effect when there was a head.
        reject(new LineError('gone', GONE))
      })
      this.#flows.add(flow)
      this.#watchFlows()
      outgoing.signal?.addEventListener('abort', abort)
      if (outgoing.signal?.aborted) return abort()
      const { method, target, headers, body } = outgoing
      this.#ask({ ask: 'fetch', method, target, headers, body: body !== null, port: port2 })
      void flow.send(body)
    })
  }

  /** Has the console open a WebSocket and talk about it, as `SocketAsk` and `SocketTold`, over `port`. */
  socket(target: string, headers: HeaderList, protocols: string[], port: MessagePort): void {
    this.#ask({ ask: 'socket', target, headers, protocols, port })
  }

  /** Another line to the same. */
  fork(): MessagePort {
    const { port1, port2 } = new MessageChannel()
    this.#ask({ ask: 'line', port: port2 })
    return port1
  }

  /** Ends it, and every request on it. */
  close(tell = true): void {
    if (this.#closed) return
    if (tell) this.#port.postMessage({ ask: 'bye' } satisfies Ask)
    this.#closed = true
    this.#port.close()
    for (const wake of this.#waiting.splice(0)) wake()
    for (const flow of [...this.#flows]) flow.abort(GONE)
    this.#onClosed()
  }

  async #ping(): Promise<boolean> {
    if (this.#closed) return false
    const asked = Date.now()
    let timer
    const heard = new Promise<void>((resolve) => {
      this.#waiting.push(resolve)
      timer = setTimeout(resolve, PING_TIMEOUT)
    })
    this.#port.postMessage({ ask: 'ping' } satisfies Ask)
    await heard
    clearTimeout(timer)
    if (!this.#closed && this.#heard < asked) this.close(false)
    return !this.#closed
  }

  #ask(ask: Ask & { port: MessagePort }): void {
    const { port, ...rest } = ask
    this.#port.postMessage(rest, [port])
  }

  #watchFlows(): void {
    if (this.#flows.size > 0) this.#watch ??= setInterval(() => void this.#ping(), PING_EVERY)
    else if (this.#watch !== null) {
      clearInterval(this.#watch)
      this.#watch = null
    }
  }
}
