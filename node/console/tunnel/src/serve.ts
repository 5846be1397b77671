/** The console's end of the lines of one app. */
import { Flow } from './flow'
import type { Answer, App, Ask, FailureCode, HeaderList, SocketTold, Told } from './protocol'
import { isRecord, readAsk, readSocketAsk, whyNot } from './protocol'

/** Requests of an app that are under way at once; more wait. */
export const MAX_REQUESTS = 64
/** Requests of an app that wait; more fail at once. */
export const MAX_WAITING = 512
/** WebSockets of an app at once. */
const MAX_SOCKETS = 64
/** Lines of an app: one for its service worker, one for each of its pages. The one longest silent makes room. */
const MAX_LINES = 64
/** A line on which an answer is under way is heard every ten seconds. After so long, milliseconds, its other end is gone. */
const SILENCE = 90_000
/** What may wait in a WebSocket for the cluster to take it, bytes. */
const MAX_BUFFERED = 16 * 1024 * 1024
/** A WebSocket that was sent a message too large for it (RFC 6455, section 7.4.1). */
const TOO_LARGE = 1009

/** What of `Mesh` apps are shown with. */
export interface AppMesh {
  readonly state: { readonly state: string }
  /** Calls `listener` now and whenever the state changes. */
  onState(listener: (state: { readonly state: string }) => void): () => void
  readonly claims: { readonly aud: string }
  /** One request with its headers as they are: `fetch` keeps from its callers cookies, both ways. */
  exchange(
    request: { service: string; port: number | null; method: string; target: string; headers: HeaderList; body: boolean },
    body: ReadableStream<Uint8Array> | null,
    options?: { signal?: AbortSignal },
  ): Promise<{ head: { status: number; headers: HeaderList }; body: ReadableStream<Uint8Array> }>
  socket(service: string, port: number | null, path: string, protocols?: string[], headers?: HeaderList): AppSocket
}

/** What of `MeshSocket` is used: its `drain` says that the next of the messages that were sent has left. */
export interface AppSocket extends EventTarget {
  readonly protocol: string
  readonly bufferedAmount: number
  binaryType: 'blob' | 'arraybuffer'
  send(data: string | ArrayBuffer): void
  close(code?: number, reason?: string): void
}

/** Something with an end on a line. */
interface Ending {
  abort(message: string): void
}

interface Line {
  readonly port: MessagePort
  readonly running: Set<Ending>
  heard: number
}

export class AppServer {
  readonly #mesh: AppMesh
  readonly #app: App
  /** In the order in which they were last heard. */
  readonly #lines = new Map<MessagePort, Line>()
  readonly #sockets = new Set<AppSocket>()
  #running = 0
  /** Those who wait for their turn, and hear whether they have it. */
  readonly #waiting = new Set<(isTurn: boolean) => void>()
  #watch: ReturnType<typeof setInterval> | null = null

  constructor(mesh: AppMesh, app: App) {
    this.#mesh = mesh
    this.#app = app
    // Nobody is to wait for a mesh that does not come back.
    mesh.onState(() => this.#isOver && this.close())
  }

  /** Whether the mesh has ended for good: somebody has signed out, or the token is not accepted any more. */
  get #isOver(): boolean {
    return ['closed', 'refused'].includes(this.#mesh.state.state)
  }

  /** Answers on a line, until it is over. */
  serve(port: MessagePort): void {
    if (this.#isOver) {
      port.postMessage({ told: 'bye' } satisfies Told)
      return port.close()
    }
    const line: Line = { port, running: new Set(), heard: Date.now() }
    const [silent] = this.#lines.values()
    if (silent && this.#lines.size >= MAX_LINES) this.#end(silent, 'too many pages of this service are open')
    this.#lines.set(port, line)
    this.#watch ??= setInterval(() => this.#endSilent(), SILENCE / 3)
    port.addEventListener('message', (event: MessageEvent<unknown>) => {
      const ask = readAsk(event)
      if (!ask) return turnAway(event)
      if (!this.#lines.delete(port)) return
      line.heard = Date.now()
      this.#lines.set(port, line)
      this.#answer(line, ask)
    })
    port.addEventListener('close', () => this.#end(line, 'the page is gone'))
    port.start()
  }

  /** Tells every line that the console, or its way to the cluster, goes away. */
  close(): void {
    for (const line of [...this.#lines.values()]) this.#end(line, 'the console was closed')
    for (const socket of this.#sockets) socket.close()
  }

  #answer(line: Line, ask: Ask): void {
    switch (ask.ask) {
      case 'ping':
        return line.port.postMessage({ told: 'pong', live: this.#mesh.state.state === 'live' } satisfies Told)
      case 'bye':
        return this.#end(line, 'the page is gone')
      case 'line':
        return this.serve(ask.port)
      case 'fetch':
        return void this.#fetch(line, ask)
      case 'socket':
        return this.#socket(ask)
    }
  }

  #end(line: Line, reason: string): void {
    if (!this.#lines.delete(line.port)) return
    line.port.postMessage({ told: 'bye' } satisfies Told)
    line.port.close()
    for (const running of [...line.running]) running.abort(reason)
    if (this.#lines.size > 0 || this.#watch === null) return
    clearInterval(this.#watch)
    this.#watch = null
  }

  #endSilent(): void {
    const now = Date.now()
    for (const line of [...this.#lines.values()]) {
      if (line.running.size > 0 && now - line.heard > SILENCE) this.#end(line, 'the page is gone')
    }
  }

  async #fetch(line: Line, ask: Ask & { ask: 'fetch' }): Promise<void> {
    const stop = new AbortController()
    const onEnd = (): void => {
      line.running.delete(flow)
      stop.abort()
    }
    // What waits for its turn takes no room.
    const flow = new Flow(ask.port, () => {}, onEnd, false)
    line.running.add(flow)
    const tell = (answer: Answer): void => ask.port.postMessage(answer)
    const fail = (code: FailureCode, message: string): void => {
      tell({ answer: 'failed', code, message })
      flow.abort(message)
    }
    if (this.#waiting.size >= MAX_WAITING) return fail('failed', `${MAX_WAITING} requests of this service wait already, and no more can`)
    if (!(await this.#turn(stop.signal))) return
    try {
      if (stop.signal.aborted) return
      if (this.#mesh.state.state !== 'live') return fail('lost', 'the console has no connection to the cluster')
      const { method, target, headers, body } = ask
      const request = { ...this.#app, method, target, headers, body }
      const options = { signal: stop.signal }
      const answer = await this.#mesh.exchange(request, body ? flow.incoming : null, options)
      tell({ answer: 'head', status: answer.head.status, headers: answer.head.headers })
      await flow.send(answer.body)
    } catch (error) {
      fail(failureCode(error), error instanceof Error ? error.message : String(error))
    } finally {
      const [next] = this.#waiting
      if (next) this.#waiting.delete(next)
      else this.#running -= 1
      next?.(true)
    }
  }

  /** Waits for a request's turn; `false`: it is not wanted any more. */
  #turn(signal: AbortSignal): Promise<boolean> {
    return new Promise((resolve) => {
      if (this.#running < MAX_REQUESTS) {
        this.#running += 1
        return resolve(true)
      }
      this.#waiting.add(resolve)
      signal.addEventListener('abort', () => this.#waiting.delete(resolve) && resolve(false), { once: true })
    })
  }

  #socket({ port, target, headers, protocols }: Ask & { ask: 'socket' }): void {
    const tell = (told: SocketTold): void => {
      const transfer = told.socket === 'message' && typeof told.data !== 'string' ? [told.data] : []
      port.postMessage(told, transfer)
    }
    const closed = (code: number, reason: string, clean: boolean): void => tell({ socket: 'closed', code, reason, clean })
    if (this.#sockets.size >= MAX_SOCKETS) return closed(1006, '', false)
    const { service, port: published } = this.#app
    const socket = this.#mesh.socket(service, published, target, protocols, headers)
    socket.binaryType = 'arraybuffer'
    this.#sockets.add(socket)
    let open = false
    let over = false
    /** Of the messages that have not left yet, the eldest first. */
    const sizes: number[] = []
    socket.addEventListener('open', () => {
      open = true
      tell({ socket: 'open', protocol: socket.protocol })
    })
    socket.addEventListener('message', (event) => tell({ socket: 'message', data: (event as MessageEvent).data }))
    socket.addEventListener('close', (event) => {
      const { code, reason, wasClean } = event as CloseEvent
      this.#sockets.delete(socket)
      if (!over) closed(code, reason, wasClean)
      over = true
    })
    socket.addEventListener('drain', () => {
      if (!over) tell({ socket: 'sent', bytes: sizes.shift() ?? 0 })
    })
    port.addEventListener('message', (event: MessageEvent<unknown>) => {
      const ask = readSocketAsk(event.data)
      if (!ask || over) return
      try {
        if ('close' in ask) return socket.close(ask.code, ask.reason)
        if (!open) return
        socket.send(ask.send)
        sizes.push(typeof ask.send === 'string' ? ask.send.length : ask.send.byteLength)
        if (socket.bufferedAmount > MAX_BUFFERED) return socket.close()
      } catch (error) {
        closed(TOO_LARGE, error instanceof Error ? error.message : '', false)
        over = true
        socket.close()
      }
    })
    port.addEventListener('close', () => socket.close())
    port.start()
  }
}

/** Answers what is no request, where somebody waits for that. */
function turnAway({ data, ports: [port] }: MessageEvent<unknown>): void {
  if (!port || !isRecord(data)) return
  if (data['ask'] === 'fetch') port.postMessage({ answer: 'failed', code: 'refused', message: whyNot(data) } satisfies Answer)
  if (data['ask'] === 'socket') port.postMessage({ socket: 'closed', code: 1006, reason: '', clean: false } satisfies SocketTold)
}

function failureCode(error: unknown): FailureCode {
  const code = error instanceof Error && 'code' in error ? error.code : null
  return code === 'lost' || code === 'refused' ? code : 'failed'
}
