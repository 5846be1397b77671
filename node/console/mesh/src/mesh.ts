import { MeshError } from './api.js'
import type { MeshOptions, MeshSocket, MeshState, TokenClaims, View } from './api.js'
import { Attachment } from './attachment.js'
import { peek } from './certificate.js'
import { fetchOver } from './fetch.js'
import type { Frames } from './frames.js'
import { aborted } from './mux.js'
import { enter } from './session.js'
import type { Dial, Session } from './session.js'
import { Socket } from './socket.js'
import { dial } from './transport/webrtc.js'
import type { LiveUpdate, Reply, Request as ClusterRequest } from './types.js'
import { apply, emptyView } from './view.js'
import { whenReachable } from './wake.js'

/** What tests replace. */
export interface Inside {
  dial: Dial
  /** The peer id that an address names; `null`: this transport cannot dial it. */
  peerOf: (address: string) => string | null
}

/** A cluster, seen from a browser: its live view, requests to it, and its services. */
export class Mesh {
  /** What the token says of itself; nobody has checked it. */
  readonly claims: TokenClaims

  readonly #token: string
  readonly #inside: Inside
  readonly #attachment: Attachment
  readonly #stateListeners = new Set<(state: MeshState) => void>()
  readonly #viewListeners = new Set<(view: View, changed: ReadonlySet<keyof View>) => void>()
  /** Those who wait for a session. */
  readonly #waiting = new Set<() => void>()
  #state: MeshState = { state: 'connecting', since: Date.now() }
  #view: View = emptyView()
  #forget: () => void = () => {}

  /** @throws MeshError: the token is not one of a user */
  constructor(options: MeshOptions, inside: Inside = browser) {
    const token = options.token.trim()
    const claims = peek(token)
    if (!claims) throw new MeshError('refused', 'this is not a token of a Virtual Cluster')
    if (typeof claims.scope !== 'object' || claims.scope === null || !('user' in claims.scope)) {
      throw new MeshError('refused', "this is not a user's token: make one with 'vc token create --user NAME'")
    }
    this.#token = token
    this.#inside = inside
    const { sub, exp, scope, aud } = claims
    this.claims = { sub, exp, scope, aud }
    this.#attachment = new Attachment((address, signal) => this.#connect(address, signal), {
      onActive: (session) => this.#onActive(session),
      onLost: (reason, retryAt) => this.#onLost(reason, retryAt),
      onRefused: (reason) => this.#become({ state: 'refused', reason }),
    })
    this.#learn([...claims.peers, ...(options.peers ?? [])])
  }

  /** How the connection is. */
  get state(): MeshState {
    return this.#state
  }

  /** The cluster, as it was last heard of; also while the connection is lost. */
  get view(): View {
    return this.#view
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
    if (this.#state.state !== 'connecting') return
    this.#forget()
    this.#forget = whenReachable(() => this.#attachment.retry())
    this.#attachment.start()
  }

  /** Addresses of members learned so far: to keep for the next visit. */
  known(): string[] {
    return this.#attachment.known()
  }

  /**
   * Asks for one answer. Nothing is asked twice: when the connection is lost on the way (`lost`), a change may or may not
   * have been made.
   */
  async request(request: ClusterRequest, options: { signal?: AbortSignal } = {}): Promise<Reply> {
    for await (const reply of this.#replies(request, options.signal)) {
      if (reply.reply !== 'working' && reply.reply !== 'note') return reply
    }
    throw new MeshError('failed', 'the node gave no answer')
  }

  /** Asks for a run of answers, up to the node's `end`. Leaving the loop ends it. */
  async *stream(request: ClusterRequest, options: { signal?: AbortSignal } = {}): AsyncGenerator<Reply> {
    for await (const reply of this.#replies(request, options.signal)) {
      if (reply.reply === 'end') return
      yield reply
    }
  }

  /**
   * `fetch` to an instance of a service. Bodies stream both ways; `input` is a path on the service. Redirects are answers
   * like others, and cookies are neither kept nor sent: both are the caller's business ({@link responseHead}).
   *
   * @param service `web` or `project/web`
   * @param port which of the ports that it publishes; `null`: its only one
   * @throws MeshError; the body's stream fails with one as well, when it is cut
   */
  async fetch(service: string, port: number | null, input: RequestInfo | URL, init?: RequestInit): Promise<Response> {
    return await fetchOver((signal) => this.#open(signal), service, port, input, init)
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
    headers: [string, string][] = [],
  ): MeshSocket {
    return new Socket((signal) => this.#open(signal), { service, port, target: path, headers, protocols })
  }

  /** Ends everything. */
  close(): void {
    this.#forget()
    this.#attachment.close()
    if (this.#state.state !== 'refused') this.#become({ state: 'closed' })
    this.#wake()
  }

  async *#replies(request: ClusterRequest, signal: AbortSignal | undefined): AsyncGenerator<Reply> {
    const frames = await this.#open(signal)
    const stop = (): void => frames.abort(aborted(signal as AbortSignal))
    signal?.addEventListener('abort', stop)
    try {
      await frames.sendJson(request)
      for (;;) {
        const reply = await frames.receiveJson<Reply>()
        if (reply.reply === 'error') throw new MeshError('refused', reply.value)
        yield reply
      }
    } finally {
      signal?.removeEventListener('abort', stop)
      frames.leave()
    }
  }

  /** Opens a stream on the session that is used. Waits for one while nodes are being dialled for the first time or again. */
  async #open(signal?: AbortSignal): Promise<Frames> {
    for (;;) {
      if (signal?.aborted) throw aborted(signal)
      const session = this.#attachment.active
      if (session) return await session.mux.open(signal)
      if (this.#state.state === 'refused') throw new MeshError('refused', this.#state.reason)
      if (this.#state.state === 'closed') throw new MeshError('lost', 'the mesh was closed')
      if (this.#state.state === 'lost') throw new MeshError('lost', this.#state.reason)
      await new Promise<void>((resolve) => {
        this.#waiting.add(resolve)
        signal?.addEventListener('abort', () => resolve(), { once: true })
      })
    }
  }

  async #connect(address: string, signal: AbortSignal): Promise<Session> {
    const link = await this.#inside.dial(address, signal)
    const session = await enter(link, this.#token, this.claims.aud, signal)
    this.#learn(session.peers)
    return session
  }

  #learn(addresses: string[]): void {
    for (const address of addresses) {
      const peer = this.#inside.peerOf(address)
      if (peer !== null) this.#attachment.learn(peer, address)
    }
  }

  #onActive(session: Session | null): void {
    if (session) void this.#watch(session)
    else this.#become({ state: 'connecting', since: Date.now() })
    this.#wake()
  }

  #onLost(reason: string, retryAt: number): void {
    const since = this.#state.state === 'lost' ? this.#state.since : Date.now()
    this.#become({ state: 'lost', since, reason: reason || 'no address of a node is known', retryAt })
    this.#wake()
  }

  /** Follows the cluster at a node; its silence or its end is the session's. */
  async #watch(session: Session): Promise<void> {
    if (this.#state.state !== 'connecting') this.#become({ state: 'connecting', since: Date.now() })
    try {
      const frames = await session.mux.open()
      await frames.sendJson({ op: 'live' })
      for (;;) {
        const reply = await frames.receiveJson<Reply>()
        if (reply.reply !== 'live') break
        this.#take(reply.value)
        if (this.#attachment.active === session && this.#state.state !== 'live') this.#live(session)
      }
    } catch {
      // Whatever it was: this session does not show the cluster any more.
    }
    session.close()
  }

  #live(session: Session): void {
    const { node, address, role, mux } = session
    this.#become({ state: 'live', node, address, rttMs: mux.rttMs, role, user: this.claims.sub })
    mux.onRtt = (rttMs) => {
      const state = this.#state
      // Listeners hear of a round trip that is another, not of each.
      if (state.state !== 'live' || state.node !== node || Math.round(state.rttMs ?? -1) === Math.round(rttMs)) return
      this.#become({ ...state, rttMs })
    }
  }

  #take(update: LiveUpdate): void {
    const { view, changed } = apply(this.#view, update)
    if (changed.size === 0) return
    this.#view = view
    if (update.nodes) this.#learn(update.nodes.flatMap(dialled))
    for (const listener of [...this.#viewListeners]) listener(view, changed)
  }

  #become(state: MeshState): void {
    this.#state = state
    for (const listener of [...this.#stateListeners]) listener(state)
  }

  #wake(): void {
    const waiting = [...this.#waiting]
    this.#waiting.clear()
    for (const wake of waiting) wake()
  }
}
