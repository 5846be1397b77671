import { MeshError, refusal } from './api.js'
import type { Every, Exchange, MeshOptions, MeshSocket, MeshState, RunningCommand, TokenClaims, View } from './api.js'
import { SessionPool } from './session-pool.js'
import { decodeClaims } from './certificate.js'
import { exchange } from './exchange.js'
import { exec } from './exec.js'
import { outgoing, responseOf } from './fetch.js'
import type { Frames } from './frames.js'
import { aborted } from './mux.js'
import { authenticate } from './session.js'
import type { Dial, Session } from './session.js'
import { Socket } from './socket.js'
import { parseAddress } from './transport/address.js'
import { dial } from './transport/webrtc.js'
import type { ExecRequest, FetchRequest, HeaderList, LiveUpdate, NodeRow, Reply, Request as ClusterRequest } from './types.js'
import { applyUpdate, emptyView } from './view.js'
import { onNetworkChange } from './network-change.js'

/** Dials nodes; tests replace it. */
export interface Transport {
  dial: Dial
  /** Returns the peer id in an address; `null` if this transport cannot dial it. */
  peerOf: (address: string) => string | null
}

const browser: Transport = { dial, peerOf: (address) => parseAddress(address)?.peer ?? null }

/** Tells whether a reply is the answer to a request, not a keepalive or a note before it. */
const isAnswer = (reply: Reply): boolean => reply.reply !== 'keep_alive' && reply.reply !== 'note'
/** Tells whether a reply ends a stream of replies. */
const isEnd = (reply: Reply): boolean => reply.reply === 'end'

/** Methods whose requests change nothing (RFC 9110, section 9.2.1) and may be sent again. */
const SAFE_METHODS = ['GET', 'HEAD']
/** Number of times that such a request is sent again. */
const MAX_REPEATS = 2

/** A client of one cluster: its live view, requests to its nodes, and `fetch` and WebSockets to its services. */
export class Mesh {
  /** The claims of the token, without any check of its signature. */
  readonly claims: TokenClaims

  readonly #token: string
  readonly #transport: Transport
  readonly #every: Every | undefined
  readonly #sessions: SessionPool
  readonly #stateListeners = new Set<(state: MeshState) => void>()
  readonly #viewListeners = new Set<(view: View, changed: ReadonlySet<keyof View>) => void>()
  /** Requests that wait for a session. */
  readonly #waiters = new Set<() => void>()
  /** Functions to be called when another session becomes active than their own. */
  readonly #onReplaced = new Map<() => void, Session>()
  #state: MeshState = { state: 'connecting', since: Date.now() }
  #view: View = emptyView()
  #lastUpdate = 0
  /** Identifies the current watch: a replaced one stops. */
  #currentWatch: symbol | null = null
  #stopNetworkChange: () => void = () => {}

  /**
   * Creates a client; `start` connects it.
   *
   * @throws MeshError `refused` if the token is not a user token
   */
  constructor(options: MeshOptions, transport: Transport = browser) {
    const token = options.token.trim()
    const claims = decodeClaims(token)
    if (!claims) throw new MeshError('refused', 'this is not a token of a Virtual Cluster')
    if (typeof claims.scope !== 'object' || claims.scope === null || !('user' in claims.scope)) {
      throw new MeshError('refused', "this is not a user token: create one with 'vc token create --user NAME'")
    }
    this.#token = token
    this.#transport = transport
    this.#every = options.every
    const { sub, exp, scope, aud } = claims
    this.claims = { sub, exp, scope, aud }
    this.#sessions = new SessionPool((address, signal) => this.#connect(address, signal), {
      onActive: (session) => this.#onActive(session),
      onLost: (reason, retryAt) => this.#onLost(reason, retryAt),
      onRefused: (reason) => this.#setState({ state: 'refused', reason }),
    })
    for (const address of [...claims.peers, ...(options.peers ?? [])]) {
      const peer = this.#transport.peerOf(address)
      if (peer !== null) this.#sessions.addAddress(peer, address)
    }
  }

  /** The state of the connection. */
  get state(): MeshState {
    return this.#state
  }

  /** The last known state of the cluster, also while the connection is lost. */
  get view(): View {
    return this.#view
  }

  /** Time of the last update or keepalive of the view, in milliseconds since the epoch; 0 before the first. */
  get seen(): number {
    return this.#lastUpdate
  }

  /** Calls `listener` now and on every change of state. Returns the function that unsubscribes it. */
  onState(listener: (state: MeshState) => void): () => void {
    this.#stateListeners.add(listener)
    listener(this.#state)
    return () => this.#stateListeners.delete(listener)
  }

  /**
   * Calls `listener` on every change of the view, with the sections that changed. Returns the function that unsubscribes
   * it.
   */
  onView(listener: (view: View, changed: ReadonlySet<keyof View>) => void): () => void {
    this.#viewListeners.add(listener)
    return () => this.#viewListeners.delete(listener)
  }

  /** Connects and keeps reconnecting until `close`. */
  start(): void {
    this.#stopNetworkChange()
    this.#stopNetworkChange = onNetworkChange(() => this.#sessions.redial())
    this.#sessions.start()
  }

  /** Returns addresses of members, to be passed as `peers` to the next client. Those that the cluster lists come first. */
  known(): string[] {
    return this.#sessions.known()
  }

  /**
   * Sends a request and returns its reply. It is never sent again: if the connection is lost (`lost`), a change may or may not
   * have been made.
   *
   * @throws MeshError
   */
  async request(request: ClusterRequest, options: { signal?: AbortSignal } = {}): Promise<Reply> {
    for await (const reply of this.#replies(request, isAnswer, options.signal)) {
      if (isAnswer(reply)) return reply
    }
    throw new MeshError('failed', 'the node sent no reply')
  }

  /**
   * Sends a request and yields its replies up to the node's `end`. Leaving the loop cancels the request.
   *
   * @throws MeshError
   */
  async *stream(request: ClusterRequest, options: { signal?: AbortSignal } = {}): AsyncGenerator<Reply> {
    for await (const reply of this.#replies(request, isEnd, options.signal)) {
      if (!isEnd(reply)) yield reply
    }
  }

  /**
   * Fetches from an instance of a service. Bodies stream in both directions; `input` is a path on the service. Redirects are
   * not followed, and cookies are neither stored nor sent.
   *
   * @param service `web` or `project/web`
   * @param port the published port; `null` for the only one
   * @throws MeshError, also from the body's stream if it is cut off
   */
  async fetch(service: string, port: number | null, input: RequestInfo | URL, init?: RequestInit): Promise<Response> {
    const { request, body, signal } = await outgoing(service, port, input, init)
    const answer = await this.exchange(request, body, signal ? { signal } : {})
    return await responseOf(answer, request.method)
  }

  /**
   * Sends a request as {@link fetch} does, with headers unchanged in both directions, cookies included.
   *
   * A GET or HEAD request is sent again, through another node, if its node falls silent or is lost before the response.
   */
  async exchange(
    request: FetchRequest,
    body: ReadableStream<Uint8Array> | null = null,
    options: { signal?: AbortSignal } = {},
  ): Promise<Exchange> {
    const { signal } = options
    if (body !== null || !SAFE_METHODS.includes(request.method)) return await exchange((signal) => this.#open(signal), request, body, signal)
    return await this.#repeated(request, signal)
  }

  /** Fetches as {@link fetch} does, with the service in the URL: `vc://web.shop:8080/path` is port 8080 of `shop/web`. */
  async fetchUrl(url: string | URL, init?: RequestInit): Promise<Response> {
    const { protocol, hostname, port, pathname, search } = new URL(url)
    const [service = '', project, ...more] = hostname.split('.')
    if (protocol !== 'vc:' || service === '' || more.length > 0) {
      throw new MeshError('failed', `'${String(url)}' is not a URL of a service: use vc://service.project/path`)
    }
    const name = project === undefined ? service : `${project}/${service}`
    return await this.fetch(name, port === '' ? null : Number(port), (pathname || '/') + search, init)
  }

  /**
   * Opens a WebSocket to an instance of a service. Arguments as for {@link fetch}; `headers` may contain cookies and an
   * origin.
   */
  socket(
    service: string,
    port: number | null,
    path: string,
    protocols: string[] = [],
    headers: HeaderList = [],
  ): MeshSocket {
    return new Socket((signal) => this.#open(signal), { service, port, target: path, headers, protocols })
  }

  /** Runs a command in an instance, with a terminal or without. Errors: `MeshError`. */
  async exec(request: ExecRequest, options: { signal?: AbortSignal } = {}): Promise<RunningCommand> {
    return await exec((signal) => this.#open(signal), request, options.signal)
  }

  /** Closes all connections. Pending requests fail with `lost`. */
  close(): void {
    this.#stopNetworkChange()
    this.#sessions.close()
    if (this.#state.state !== 'refused') this.#setState({ state: 'closed' })
    this.#wakeWaiters()
  }

  /** Sends a safe request, again at most `MAX_REPEATS` times while its session is replaced or lost before the response. */
  async #repeated(request: FetchRequest, signal: AbortSignal | undefined): Promise<Exchange> {
    for (let repeats = 0; ; repeats++) {
      const replaced = new AbortController()
      const onReplaced = (): void => replaced.abort()
      const isLast = repeats === MAX_REPEATS
      const open = async (signal?: AbortSignal): Promise<Frames> => {
        const session = await this.#session(signal)
        if (!isLast) this.#onReplaced.set(onReplaced, session)
        return await session.mux.open(signal)
      }
      try {
        return await exchange(open, request, null, AbortSignal.any([...(signal ? [signal] : []), replaced.signal]))
      } catch (error) {
        const mayRepeat = replaced.signal.aborted || (error instanceof MeshError && error.code === 'lost')
        if (isLast || signal?.aborted || !mayRepeat) throw error
      } finally {
        this.#onReplaced.delete(onReplaced)
      }
    }
  }

  /** Sends a request and yields its replies, up to an error or the last one. */
  async *#replies(
    request: ClusterRequest,
    isLast: (reply: Reply) => boolean,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Reply> {
    const frames = await this.#open(signal)
    const stop = (): void => frames.abort(aborted(signal as AbortSignal))
    signal?.addEventListener('abort', stop)
    let isDone = false
    try {
      // `signal` may have aborted while the stream was opened.
      if (signal?.aborted) stop()
      await frames.sendJson(request)
      while (!isDone) {
        const reply = await frames.receiveJson<Reply>()
        isDone = reply.reply === 'error' || isLast(reply)
        if (reply.reply === 'error') throw refusal(reply.value)
        yield reply
      }
    } finally {
      signal?.removeEventListener('abort', stop)
      if (isDone) frames.finish()
      else frames.abort(new MeshError('aborted', 'the request was cancelled'))
    }
  }

  /** Opens a stream on the active session; waits for one while connecting. */
  async #open(signal?: AbortSignal): Promise<Frames> {
    return await (await this.#session(signal)).mux.open(signal)
  }

  /** Returns the active session; waits for one while connecting. */
  async #session(signal?: AbortSignal): Promise<Session> {
    for (;;) {
      if (signal?.aborted) throw aborted(signal)
      const session = this.#sessions.active
      if (session) return session
      if (this.#state.state === 'refused') throw new MeshError('refused', this.#state.reason)
      if (this.#state.state === 'closed') throw new MeshError('lost', 'the mesh was closed')
      if (this.#state.state === 'lost') throw new MeshError('lost', this.#state.reason)
      await new Promise<void>((resolve) => {
        this.#waiters.add(resolve)
        signal?.addEventListener('abort', () => resolve(), { once: true })
      })
    }
  }

  async #connect(address: string, signal: AbortSignal): Promise<Session> {
    const connection = await this.#transport.dial(address, signal)
    return await authenticate(connection, this.#token, this.claims.aud, signal, this.#every)
  }

  #onActive(session: Session | null): void {
    if (session) {
      void this.#watch(session)
      for (const [onReplaced, own] of this.#onReplaced) if (own !== session) onReplaced()
    } else this.#setState({ state: 'connecting', since: Date.now() })
    this.#wakeWaiters()
  }

  #onLost(reason: string, retryAt: number): void {
    const since = this.#state.state === 'lost' ? this.#state.since : Date.now()
    this.#setState({ state: 'lost', since, reason: reason || 'no address of a node is known', retryAt })
    this.#wakeWaiters()
  }

  /** Follows the live view on the active session, and closes the session if the view ends. */
  async #watch(session: Session): Promise<void> {
    const watch = (this.#currentWatch = Symbol('watch'))
    if (this.#state.state !== 'connecting') this.#setState({ state: 'connecting', since: Date.now() })
    try {
      const frames = await session.mux.open()
      await frames.sendJson({ op: 'live' })
      for (let first = true; ; first = false) {
        const reply = await frames.receiveJson<Reply>()
        if (watch !== this.#currentWatch) return frames.abort(new MeshError('aborted', 'another session is active'))
        if (reply.reply !== 'live') break
        this.#applyUpdate(reply.value, first)
        if (first) this.#setLive(session)
      }
    } catch {
      // Any failure ends the view, and with it the session.
    }
    if (watch === this.#currentWatch) session.close()
  }

  #setLive(session: Session): void {
    const { node, address, role, mux } = session
    this.#setState({ state: 'live', node, address, rttMs: mux.rttMs, role, user: this.claims.sub })
    mux.onRtt = (rttMs) => {
      const state = this.#state
      if (state.state !== 'live' || state.node !== node) return
      // Reports significant changes only: by a quarter and by a millisecond.
      const reported = state.rttMs ?? Number.NEGATIVE_INFINITY
      if (Math.abs(rttMs - reported) < Math.max(1, reported / 4)) return
      this.#setState({ ...state, rttMs })
    }
  }

  #applyUpdate(update: LiveUpdate, first: boolean): void {
    this.#lastUpdate = Date.now()
    const { view, changed } = applyUpdate(this.#view, update, first)
    if (changed.size === 0) return
    this.#view = view
    if (update.nodes) {
      this.#sessions.setListed(new Map(update.nodes.map((node) => [node.id, this.#dialable(node)])))
      this.#sessions.setDown(new Set(update.nodes.filter(({ state }) => state !== 'up').map(({ id }) => id)))
    }
    for (const listener of [...this.#viewListeners]) notify(() => listener(view, changed))
  }

  #setState(state: MeshState): void {
    this.#state = state
    for (const listener of [...this.#stateListeners]) notify(() => listener(state))
  }

  /** Returns the addresses of a node that this transport can dial. */
  #dialable({ id, addresses }: NodeRow): string[] {
    const whole = addresses.map((address) => (address.includes('/p2p/') ? address : `${address}/p2p/${id}`))
    return whole.filter((address) => this.#transport.peerOf(address) === id)
  }

  #wakeWaiters(): void {
    const waiting = [...this.#waiters]
    this.#waiters.clear()
    for (const wake of waiting) wake()
  }
}

/** Calls a listener and reports what it throws, so that the connection is not affected. */
function notify(call: () => void): void {
  try {
    call()
  } catch (error) {
    reportError(error)
  }
}
