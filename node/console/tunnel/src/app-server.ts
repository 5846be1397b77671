/** Implements the console's end of the RPC channels of one app. */
import { CreditStream } from './credit-stream'
import type { App, FailureCode, HeaderList, RpcCall, RpcEvent, RpcReply, SocketEvent } from './protocol'
import { isRecord, parseCall, parseSocketCommand, rejectionReason } from './protocol'

/** Maximum number of requests of an app in flight; more are queued. */
export const MAX_REQUESTS = 64
/** Maximum number of queued requests of an app; more fail at once. */
export const MAX_QUEUED = 512
/** Maximum number of open WebSockets of an app. */
const MAX_SOCKETS = 64
/**
 * Maximum number of channels of an app: one for its service worker, one per page. Above it the least recently active is
 * closed.
 */
const MAX_CHANNELS = 64
/**
 * Time after which a silent channel with requests in flight is closed, in milliseconds; such a channel is pinged every 10
 * s.
 */
const IDLE_TIMEOUT = 90_000
/** Maximum number of bytes buffered in a WebSocket towards the cluster. */
const MAX_BUFFERED = 16 * 1024 * 1024
/** Time after which a held request is sent again, in milliseconds. */
const RETRY_INTERVAL = 1_000
/** Statuses of a node's refusal after which the request may have reached an instance, or may reach one later. */
const NO_ANSWER = ['unavailable', 'deadline_exceeded']
/** Close code of a WebSocket after a message that is too large (RFC 6455, section 7.4.1). */
const TOO_LARGE = 1009

/** A response of an instance. */
interface AppResponse {
  head: { status: number; headers: HeaderList }
  body: ReadableStream<Uint8Array>
}

/** The part of `Mesh` that the tunnel uses. */
export interface AppMesh {
  readonly state: { readonly state: string }
  /** Calls `listener` now and on every change of state; returns the function that unsubscribes it. */
  onState(listener: (state: { readonly state: string }) => void): () => void
  readonly claims: { readonly aud: string }
  /** Sends a request with its headers unchanged; `fetch` hides cookies in both directions. */
  exchange(
    request: { service: string; port: number | null; method: string; target: string; headers: HeaderList; body: boolean },
    body: ReadableStream<Uint8Array> | null,
    options?: { signal?: AbortSignal },
  ): Promise<AppResponse>
  socket(service: string, port: number | null, path: string, protocols?: string[], headers?: HeaderList): AppSocket
}

/** The part of `MeshSocket` that the tunnel uses; its `drain` event reports that the next sent message has left. */
export interface AppSocket extends EventTarget {
  readonly protocol: string
  readonly bufferedAmount: number
  binaryType: 'blob' | 'arraybuffer'
  send(data: string | ArrayBuffer): void
  close(code?: number, reason?: string): void
}

interface Channel {
  readonly port: MessagePort
  readonly streams: Set<CreditStream>
  lastActivity: number
}

/** Serves the channels of one app from the mesh. */
export class AppServer {
  readonly #mesh: AppMesh
  readonly #app: App
  /** Channels, least recently active first. */
  readonly #channels = new Map<MessagePort, Channel>()
  readonly #sockets = new Set<AppSocket>()
  /** Value of the `Authorization` header of requests without one. Kept here, where scripts of the app cannot read it. */
  #authorization: string | null = null
  #running = 0
  /** Queued requests in order; called with `true` when a permit is free, with `false` when the request was aborted. */
  readonly #queue = new Set<(hasPermit: boolean) => void>()
  #idleTimer: ReturnType<typeof setInterval> | null = null

  constructor(mesh: AppMesh, app: App) {
    this.#mesh = mesh
    this.#app = app
    mesh.onState(() => this.#hasEnded && this.close())
  }

  /** Whether the mesh will not reconnect: the user signed out, or the token was refused. */
  get #hasEnded(): boolean {
    return ['closed', 'refused'].includes(this.#mesh.state.state)
  }

  /** Serves a channel until it is closed. */
  serve(port: MessagePort): void {
    if (this.#hasEnded) {
      port.postMessage({ event: 'close' } satisfies RpcEvent)
      return port.close()
    }
    const channel: Channel = { port, streams: new Set(), lastActivity: Date.now() }
    const [leastActive] = this.#channels.values()
    if (leastActive && this.#channels.size >= MAX_CHANNELS) this.#close(leastActive, 'too many pages of this service are open')
    this.#channels.set(port, channel)
    this.#idleTimer ??= setInterval(() => this.#closeIdle(), IDLE_TIMEOUT / 3)
    port.addEventListener('message', (event: MessageEvent<unknown>) => {
      const call = parseCall(event)
      if (!call) return reject(event)
      if (!this.#channels.delete(port)) return
      channel.lastActivity = Date.now()
      this.#channels.set(port, channel)
      this.#dispatch(channel, call)
    })
    port.addEventListener('close', () => this.#close(channel, 'the page was closed'))
    port.start()
  }

  /** Closes every channel and WebSocket of the app. */
  close(): void {
    for (const channel of [...this.#channels.values()]) this.#close(channel, 'the console was closed')
    for (const socket of this.#sockets) socket.close()
  }

  #dispatch(channel: Channel, call: RpcCall): void {
    switch (call.op) {
      case 'ping':
        return channel.port.postMessage({ event: 'pong', live: this.#mesh.state.state === 'live' } satisfies RpcEvent)
      case 'close':
        return this.#close(channel, 'the page was closed')
      case 'fork':
        return this.serve(call.port)
      case 'credentials':
        this.#authorization = call.authorization
        return
      case 'fetch':
        return void this.#fetch(channel, call)
      case 'socket':
        return this.#socket(call)
    }
  }

  #close(channel: Channel, reason: string): void {
    if (!this.#channels.delete(channel.port)) return
    channel.port.postMessage({ event: 'close' } satisfies RpcEvent)
    channel.port.close()
    for (const stream of [...channel.streams]) stream.abort(reason)
    if (this.#channels.size > 0 || this.#idleTimer === null) return
    clearInterval(this.#idleTimer)
    this.#idleTimer = null
  }

  #closeIdle(): void {
    const now = Date.now()
    for (const channel of [...this.#channels.values()]) {
      if (channel.streams.size > 0 && now - channel.lastActivity > IDLE_TIMEOUT) this.#close(channel, 'the page was closed')
    }
  }

  async #fetch(channel: Channel, call: RpcCall & { op: 'fetch' }): Promise<void> {
    const stop = new AbortController()
    const onEnd = (): void => {
      channel.streams.delete(stream)
      stop.abort()
    }
    // No prefetch: a queued request must not buffer its body here.
    const stream = new CreditStream(call.port, () => {}, onEnd, false)
    channel.streams.add(stream)
    const post = (reply: RpcReply): void => call.port.postMessage(reply)
    const fail = (code: FailureCode, message: string): void => {
      post({ reply: 'error', code, message })
      stream.abort(message)
    }
    if (this.#queue.size >= MAX_QUEUED) return fail('failed', `${MAX_QUEUED} requests to this service are queued, which is the limit; retry later`)
    if (!(await this.#acquirePermit(stop.signal))) return
    try {
      const { headers, authorized } = this.#authorize(call.headers)
      const response = await this.#exchange({ ...call, headers }, stream, stop.signal)
      if (response === null) return
      post({ reply: 'head', status: response.head.status, headers: response.head.headers, authorized })
      await stream.send(response.body)
    } catch (error) {
      fail(failureCode(error), error instanceof Error ? error.message : String(error))
    } finally {
      this.#releasePermit()
    }
  }

  /**
   * Sends a request and returns its response; `null` if the request was aborted. A held one is sent again until an instance
   * answers.
   */
  async #exchange(call: RpcCall & { op: 'fetch' }, stream: CreditStream, signal: AbortSignal): Promise<AppResponse | null> {
    const { method, target, headers, body, hold } = call
    while (!signal.aborted) {
      try {
        if (['live', 'connecting'].includes(this.#mesh.state.state)) {
          return await this.#mesh.exchange({ ...this.#app, method, target, headers, body }, body ? stream.incoming : null, { signal })
        }
        if (!hold || this.#hasEnded) throw new Unreachable('the console has no connection to the cluster')
      } catch (error) {
        if (!hold || this.#hasEnded || failureCode(error) === 'refused') throw error
      }
      await pause(RETRY_INTERVAL, signal)
    }
    return null
  }

  /** Adds the kept credentials to headers that have none, and tells whether it did. */
  #authorize(headers: HeaderList): { headers: HeaderList; authorized: boolean } {
    const authorization = this.#authorization
    if (authorization === null || headers.some(([name]) => name.toLowerCase() === 'authorization')) return { headers, authorized: false }
    return { headers: [...headers, ['authorization', authorization]], authorized: true }
  }

  /** Waits for a request permit; resolves to `false` if the request was aborted first. */
  #acquirePermit(signal: AbortSignal): Promise<boolean> {
    return new Promise((resolve) => {
      if (this.#running < MAX_REQUESTS) {
        this.#running += 1
        return resolve(true)
      }
      this.#queue.add(resolve)
      signal.addEventListener('abort', () => this.#queue.delete(resolve) && resolve(false), { once: true })
    })
  }

  /** Passes the permit to the next queued request, or frees it. */
  #releasePermit(): void {
    const [next] = this.#queue
    if (next) this.#queue.delete(next)
    else this.#running -= 1
    next?.(true)
  }

  #socket({ port, target, headers, protocols }: RpcCall & { op: 'socket' }): void {
    const post = (event: SocketEvent): void => {
      const transfer = event.socket === 'message' && typeof event.data !== 'string' ? [event.data] : []
      port.postMessage(event, transfer)
    }
    const closed = (code: number, reason: string, clean: boolean): void => post({ socket: 'closed', code, reason, clean })
    if (this.#sockets.size >= MAX_SOCKETS) return closed(1006, '', false)
    const { service, port: published } = this.#app
    const socket = this.#mesh.socket(service, published, target, protocols, this.#authorize(headers).headers)
    socket.binaryType = 'arraybuffer'
    this.#sockets.add(socket)
    let isOpen = false
    let isClosed = false
    /** Sizes of the messages that have not left yet, oldest first. */
    const sizes: number[] = []
    socket.addEventListener('open', () => {
      isOpen = true
      post({ socket: 'open', protocol: socket.protocol })
    })
    socket.addEventListener('message', (event) => post({ socket: 'message', data: (event as MessageEvent).data }))
    socket.addEventListener('close', (event) => {
      const { code, reason, wasClean } = event as CloseEvent
      this.#sockets.delete(socket)
      if (!isClosed) closed(code, reason, wasClean)
      isClosed = true
    })
    socket.addEventListener('drain', () => {
      if (!isClosed) post({ socket: 'sent', bytes: sizes.shift() ?? 0 })
    })
    port.addEventListener('message', (event: MessageEvent<unknown>) => {
      const command = parseSocketCommand(event.data)
      if (!command || isClosed) return
      try {
        if ('close' in command) return socket.close(command.code, command.reason)
        if (!isOpen) return
        socket.send(command.send)
        sizes.push(typeof command.send === 'string' ? command.send.length : command.send.byteLength)
        if (socket.bufferedAmount > MAX_BUFFERED) return socket.close()
      } catch (error) {
        closed(TOO_LARGE, error instanceof Error ? error.message : '', false)
        isClosed = true
        socket.close()
      }
    })
    port.addEventListener('close', () => socket.close())
    port.start()
  }
}

/** Replies to a malformed call with an error if it carries a port for the reply. */
function reject({ data, ports: [port] }: MessageEvent<unknown>): void {
  if (!port || !isRecord(data)) return
  if (data['op'] === 'fetch') port.postMessage({ reply: 'error', code: 'refused', message: rejectionReason(data) } satisfies RpcReply)
  if (data['op'] === 'socket') port.postMessage({ socket: 'closed', code: 1006, reason: '', clean: false } satisfies SocketEvent)
}

/** Reports that nothing was sent: the console has no connection to the cluster. */
class Unreachable extends Error {
  readonly code = 'unreachable'
}

function failureCode(error: unknown): FailureCode {
  const { code, status } = (error instanceof Error ? error : {}) as { code?: unknown; status?: unknown }
  if (code === 'refused') return NO_ANSWER.includes(String(status)) ? 'failed' : 'refused'
  return code === 'lost' || code === 'unreachable' ? code : 'failed'
}

/** Resolves after a time in milliseconds, or when `signal` aborts. */
function pause(time: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, time)
    signal.addEventListener('abort', done)
  })
}
