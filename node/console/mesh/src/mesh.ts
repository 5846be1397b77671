import { MeshError } from './api.js'
import type { Exchange, MeshOptions, MeshSocket, MeshState, TokenClaims, View } from './api.js'
import { SessionPool } from './session-pool.js'
import { decodeClaims } from './certificate.js'
import { exchange } from './exchange.js'
import { outgoing, responseOf } from './fetch.js'
import type { Frames } from './frames.js'
import { aborted } from './mux.js'
import { authenticate } from './session.js'
import type { Dial, Session } from './session.js'
import { Socket } from './socket.js'
import { parseAddress } from './transport/address.js'
import { dial } from './transport/webrtc.js'
import type { FetchRequest, HeaderList, LiveUpdate, NodeRow, Reply, Request as ClusterRequest } from './types.js'
import { describeError } from './types.js'
import { applyUpdate, emptyView } from './view.js'
import { onNetworkChange } from './network-change.js'

/** Where connections come from. */
export interface Transport {
  dial: Dial
  /** The peer id that an address names; `null`: this transport cannot dial it. */
  peerOf: (address: string) => string | null
}

const browser: Transport = { dial, peerOf: (address) => parseAddress(address)?.peer ?? null }

/** Whether a reply is the answer, not a word beside it. */
const isAnswer = (reply: Reply): boolean => reply.reply !== 'keep_alive' && reply.reply !== 'note'
/** Whether a reply ends a run of them. */
const isEnd = (reply: Reply): boolean => reply.reply === 'end'

/** A cluster, seen from a browser: its live view, requests to it, and its services. */
export class Mesh {
  /** What the token says of itself; nobody has checked it. */
  readonly claims: TokenClaims

  readonly #token: string
  readonly #transport: Transport
  readonly #sessions: SessionPool
  readonly #stateListeners = new Set<(state: MeshState) => void>()
  readonly #viewListeners = new Set<(view: View, changed: ReadonlySet<keyof View>) => void>()
  /** Those who wait for a session. */
  readonly #waiters = new Set<() => void>()
  #state: MeshState = { state: 'connecting', since: Date.now() }
  #view: View = emptyView()
  #lastUpdate = 0
  /** The view that is followed. */
  #currentWatch: symbol | null = null
  #stopNetworkChange: () => void = () => {}

  /** @throws MeshError: the token is not one of a user */
  constructor(options: MeshOptions, transport: Transport = browser) {
    const token = options.token.trim()
    const claims = decodeClaims(token)
    if (!claims) throw new MeshError('refused', 'this is not a token of a Virtual Cluster')
    if (typeof claims.scope !== 'object' || claims.scope === null || !('user' in claims.scope)) {
      throw new MeshError('refused', "this is not a user's token: make one with 'vc token create --user NAME'")
    }
    this.#token = token
    this.#transport = transport
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

  /** How the connection is. */
  get state(): MeshState {
    return this.#state
  }

  /** The cluster, as it was last heard of; also while the connection is lost. */
  get view(): View {
    return this.#view
  }

  /** When a node last told how the cluster is, or that it is as before: milliseconds since the epoch; 0: never. */
  get seen(): number {
    return this.#lastUpdate
  }

  /** Calls `listener` now and whenever the state changes. Returns what ends that. */
  onState(listener: (state: MeshState) => void): () => void {
    this.#stateListeners.add(listener)
    listener(this.#state)
    return () => this.#stateListeners.delete(listener)
  }

  /** Calls `listener` whenever the view changes, with what of it. Returns what ends that. */
  onView(listener: (view: View, changed: ReadonlySet<keyof View>) => void): () => void {
    this.#viewListeners.add(listener)
    return () => this.#viewListeners.delete(listener)
  }

  /** Begins to dial, and goes on until `close`: nodes may come and go. */
  start(): void {
    this.#stopNetworkChange()
    this.#stopNetworkChange = onNetworkChange(() => this.#sessions.redial())
    this.#sessions.start()
  }

  /** Addresses of members: to keep for the next visit. What the cluster lists now comes first. */
  known(): string[] {
    return this.#sessions.known()
  }

  /**
   * Asks for one answer. Nothing is asked twice: when the connection is lost on the way (`lost`), a change may or may not
   * have been made.
   */
  async request(request: ClusterRequest, options: { signal?: AbortSignal } = {}): Promise<Reply> {
    for await (const reply of this.#replies(request, isAnswer, options.signal)) {
      if (isAnswer(reply)) return reply
    }
    throw new MeshError('failed', 'the node gave no answer')
  }

  /** Asks for a run of answers, up to the node's `end`. Leaving the loop ends it. */
  async *stream(request: ClusterRequest, options: { signal?: AbortSignal } = {}): AsyncGenerator<Reply> {
    for await (const reply of this.#replies(request, isEnd, options.signal)) {
      if (!isEnd(reply)) yield reply
    }
  }

  /**
   * `fetch` to an instance of a service. Bodies stream both ways; `input` is a path on the service. Redirects are answers
   * like others, and cookies are neither kept nor sent: both are the caller's business.
   *
   * @param service `web` or `project/web`
   * @param port which of the ports that it publishes; `null`: its only one
   * @throws MeshError; the body's stream fails with one as well, when it is cut
   */
  async fetch(service: string, port: number | null, input: RequestInfo | URL, init?: RequestInit): Promise<Response> {
    const { request, body, signal } = await outgoing(service, port, input, init)
    const answer = await this.exchange(request, body, signal ? { signal } : {})
    return await responseOf(answer, request.method)
  }

  /** What {@link fetch} is made of: one request with its headers as they are, cookies among them. */
  async exchange(
    request: FetchRequest,
    body: ReadableStream<Uint8Array> | null = null,
    options: { signal?: AbortSignal } = {},
  ): Promise<Exchange> {
    return await exchange((signal) => this.#open(signal), request, body, options.signal)
  }

  /** {@link fetch} with the service in the URL: `vc://web.shop:8080/path` is `shop/web`, its port 8080. */
  async fetchUrl(url: string | URL, init?: RequestInit): Promise<Response> {
    const { protocol, hostname, port, pathname, search } = new URL(url)
    const [service = '', project, ...more] = hostname.split('.')
    if (protocol !== 'vc:' || service === '' || more.length > 0) {
      throw new MeshError('failed', `'${String(url)}' is not a service: write vc://service.project/path`)
    }
    const name = project === undefined ? service : `${project}/${service}`
    return await this.fetch(name, port === '' ? null : Number(port), (pathname || '/') + search, init)
  }

  /** A WebSocket to an instance of a service. Arguments as for {@link fetch}; `headers` may hold cookies and an origin. */
  socket(
    service: string,
    port: number | null,
    path: string,
    protocols: string[] = [],
    headers: HeaderList = [],
  ): MeshSocket {
    return new Socket((signal) => this.#open(signal), { service, port, target: path, headers, protocols })
  }

  /** Ends everything. */
  close(): void {
    this.#stopNetworkChange()
    this.#sessions.close()
    if (this.#state.state !== 'refused') this.#setState({ state: 'closed' })
    this.#wakeWaiters()
  }

  /** What a node answers, up to the last, whichever that is. */
  async *#replies(
    request: ClusterRequest,
    isLast: (reply: Reply) => boolean,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Reply> {
    const frames = await this.#open(signal)
    const stop = (): void => frames.abort(aborted(signal as AbortSignal))
    signal?.addEventListener('abort', stop)
    let over = false
    try {
      // It may have been aborted while the stream was opened.
      if (signal?.aborted) stop()
      await frames.sendJson(request)
      while (!over) {
        const reply = await frames.receiveJson<Reply>()
        over = reply.reply === 'error' || isLast(reply)
        if (reply.reply === 'error') throw new MeshError('refused', describeError(reply.value))
        yield reply
      }
    } finally {
      signal?.removeEventListener('abort', stop)
      if (over) frames.finish()
      else frames.abort(new MeshError('aborted', 'the request was left'))
    }
  }

  /** Opens a stream on the session that is used. Waits for one while nodes are being dialled for the first time or again. */
  async #open(signal?: AbortSignal): Promise<Frames> {
    for (;;) {
      if (signal?.aborted) throw aborted(signal)
      const session = this.#sessions.active
      if (session) return await session.mux.open(signal)
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
    const link = await this.#transport.dial(address, signal)
    return await authenticate(link, this.#token, this.claims.aud, signal)
  }

  #onActive(session: Session | null): void {
    if (session) void this.#watch(session)
    else this.#setState({ state: 'connecting', since: Date.now() })
    this.#wakeWaiters()
  }

  #onLost(reason: string, retryAt: number): void {
    const since = this.#state.state === 'lost' ? this.#state.since : Date.now()
    this.#setState({ state: 'lost', since, reason: reason || 'no address of a node is known', retryAt })
    this.#wakeWaiters()
  }

  /** Follows the cluster at a node for as long as it is the one that is used; the end of the view is the session's. */
  async #watch(session: Session): Promise<void> {
    const watch = (this.#currentWatch = Symbol('watch'))
    if (this.#state.state !== 'connecting') this.#setState({ state: 'connecting', since: Date.now() })
    try {
      const frames = await session.mux.open()
      await frames.sendJson({ op: 'live' })
      for (let first = true; ; first = false) {
        const reply = await frames.receiveJson<Reply>()
        if (watch !== this.#currentWatch) return frames.abort(new MeshError('aborted', 'another node is watched'))
        if (reply.reply !== 'live') break
        this.#applyUpdate(reply.value, first)
        if (first) this.#setLive(session)
      }
    } catch {
      // Whatever it was: this session does not show the cluster any more.
    }
    if (watch === this.#currentWatch) session.close()
  }

  #setLive(session: Session): void {
    const { node, address, role, mux } = session
    this.#setState({ state: 'live', node, address, rttMs: mux.rttMs, role, user: this.claims.sub })
    mux.onRtt = (rttMs) => {
      const state = this.#state
      if (state.state !== 'live' || state.node !== node) return
      // Listeners hear of a round trip that is another, not of each.
      const told = state.rttMs ?? Number.NEGATIVE_INFINITY
      if (Math.abs(rttMs - told) < Math.max(1, told / 4)) return
      this.#setState({ ...state, rttMs })
    }
  }

  #applyUpdate(update: LiveUpdate, first: boolean): void {
    this.#lastUpdate = Date.now()
    const { view, changed } = applyUpdate(this.#view, update, first)
    if (changed.size === 0) return
    this.#view = view
    if (update.nodes) this.#sessions.setListed(new Map(update.nodes.map((node) => [node.id, this.#dialable(node)])))
    for (const listener of [...this.#viewListeners]) report(() => listener(view, changed))
  }

  #setState(state: MeshState): void {
    this.#state = state
    for (const listener of [...this.#stateListeners]) report(() => listener(state))
  }

  /** Where a node can be dialled from here. */
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

/** Tells a listener. What it throws is its own affair, not the connection's. */
function report(tell: () => void): void {
  try {
    tell()
  } catch (error) {
    reportError(error)
  }
}
