import { MeshError } from './api.js'
import type { Session } from './session.js'

/** Number of responsive sessions: one active, one on standby. */
const SESSIONS = 2
/** Number of nodes dialled in parallel while there is no session; the first that answers becomes active. */
const PARALLEL_DIALS = 3
/** Time for dialling and authenticating, in milliseconds. */
const DIAL_TIMEOUT = 5000
/** Delay before a node is dialled again, in milliseconds; doubled after each failure. */
const MIN_BACKOFF = 200
/** Upper bound of that delay, in milliseconds. */
const MAX_BACKOFF = 5000
/** Abort reason of a dial after other nodes have answered. */
const NOT_NEEDED = new MeshError('aborted', 'other nodes answered first')
/** Age at which a dial is overdue after a network change, in milliseconds: it may have used the previous network. */
const OVERDUE_AFTER = 1000

/** Dials a node and authenticates. Errors: `MeshError`, `refused` if the node rejects the token. */
export type Connect = (address: string, signal: AbortSignal) => Promise<Session>

/** A node that can be dialled. */
interface Candidate {
  /** Addresses from the token and the options. */
  configured: Set<string>
  /** Addresses that the cluster lists now. */
  listed: string[]
  failures: number
  /** Why it last rejected the token. Another node may accept it: this one's clock may be wrong. */
  refusal: string | null
  /** Earliest time of the next dial, in milliseconds since the epoch. */
  notBefore: number
}

/** A dial in progress. */
interface PendingDial {
  peer: string
  startedAt: number
  control: AbortController
  /** Whether it no longer counts as a dial, though it may still succeed. */
  isOverdue: boolean
}

/** Receives the changes of a pool. */
export interface Listener {
  /** Reports the new active session; `null` if there is none. */
  onActive(session: Session | null): void
  /** Reports that no node answers; the next dial is at `retryAt`, in milliseconds since the epoch. */
  onLost(reason: string, retryAt: number): void
  /** Reports that the token is rejected; the pool stops dialling. */
  onRefused(reason: string): void
}

/** Keeps sessions with two nodes: one active, one on standby. Dials with exponential backoff and fails over. */
export class SessionPool {
  #active: Session | null = null
  /** All sessions, oldest first. */
  readonly #sessions = new Set<Session>()
  /** The sessions whose node is silent at the moment. */
  readonly #stalled = new Set<Session>()
  readonly #candidates = new Map<string, Candidate>()
  readonly #dials = new Set<PendingDial>()
  readonly #connect: Connect
  readonly #listener: Listener
  /** The nodes that the cluster reports as down. */
  #down: ReadonlySet<string> = new Set()
  #timer: ReturnType<typeof setTimeout> | undefined
  #running = false
  #ended = false
  #lastError = ''

  constructor(connect: Connect, listener: Listener) {
    this.#connect = connect
    this.#listener = listener
  }

  /** The active session; `null` if there is none. */
  get active(): Session | null {
    return this.#active
  }

  /**
   * Adds an address of a node, which stays whatever the cluster lists. Nodes are dialled in the order in which they are
   * added.
   */
  addAddress(peer: string, address: string): void {
    this.#candidate(peer).configured.add(address)
    if (this.#missing() > 0) this.dialMissing()
  }

  /** Replaces the addresses that the cluster lists, by peer id. */
  setListed(addresses: ReadonlyMap<string, string[]>): void {
    for (const peer of addresses.keys()) this.#candidate(peer)
    for (const [peer, candidate] of this.#candidates) candidate.listed = addresses.get(peer) ?? []
    if (this.#missing() > 0) this.dialMissing()
  }

  /**
   * Replaces the nodes that the cluster reports as down. A silent session to one of them is closed at once; a session that
   * receives something is right, and the report is late.
   */
  setDown(nodes: ReadonlySet<string>): void {
    this.#down = nodes
    for (const session of this.#stalled) if (nodes.has(session.node)) session.mux.end(nodeIsDown())
  }

  /** Returns all addresses: those in use first, then those that the cluster lists, then the configured ones. */
  known(): string[] {
    const all = [...this.#candidates.values()]
    const used = Array.from(this.#sessions, ({ address }) => address)
    return [...new Set([...used, ...all.flatMap(({ listed }) => listed), ...all.flatMap(({ configured }) => [...configured])])]
  }

  #candidate(peer: string): Candidate {
    const candidate = this.#candidates.get(peer) ?? { configured: new Set(), listed: [], failures: 0, refusal: null, notBefore: 0 }
    this.#candidates.set(peer, candidate)
    return candidate
  }

  /** Starts dialling; does nothing after `close`. */
  start(): void {
    this.#running = !this.#ended
    this.dialMissing()
  }

  /** Resets backoff and overdue dials after a network change, and dials at once. */
  redial(): void {
    for (const candidate of this.#candidates.values()) candidate.notBefore = 0
    for (const dial of this.#dials) dial.isOverdue ||= Date.now() - dial.startedAt > OVERDUE_AFTER
    this.dialMissing()
  }

  /** Dials as many nodes as sessions are missing, and schedules the next dial. */
  dialMissing(): void {
    if (!this.#running) return
    clearTimeout(this.#timer)
    const now = Date.now()
    const idle = [...this.#candidates].filter(([peer]) => !this.#isDialling(peer) && !this.#hasSession(peer))
    idle.sort((a, b) => this.#priority(a) - this.#priority(b))
    const due = idle.filter(([, candidate]) => candidate.notBefore <= now)
    for (const [peer, candidate] of due.slice(0, Math.max(0, this.#missing()))) void this.#dial(peer, candidate)
    if (this.#missing() <= 0) return
    const next = Math.min(...idle.filter(([peer]) => !this.#isDialling(peer)).map(([, { notBefore }]) => notBefore))
    if (Number.isFinite(next)) this.#timer = setTimeout(() => this.dialMissing(), Math.max(next - now, 0))
    if (!this.#active && this.#dials.size === 0) this.#listener.onLost(this.#lastError, Number.isFinite(next) ? next : now)
  }

  /** Stops dialling and closes all sessions. */
  close(): void {
    this.#running = false
    this.#ended = true
    clearTimeout(this.#timer)
    for (const { control } of this.#dials) control.abort()
    this.#active = null
    for (const session of [...this.#sessions]) session.close()
  }

  /** Returns how many more nodes to dial now; may be negative. */
  #missing(): number {
    const responsive = this.#responsive().length
    return (responsive === 0 ? PARALLEL_DIALS : SESSIONS - responsive) - this.#timelyDials().length
  }

  /** Returns the dials that are not overdue. */
  #timelyDials(): PendingDial[] {
    return [...this.#dials].filter(({ isOverdue }) => !isOverdue)
  }

  #isDialling(peer: string): boolean {
    return this.#timelyDials().some((dial) => dial.peer === peer)
  }

  #responsive(): Session[] {
    return [...this.#sessions].filter((session) => !this.#stalled.has(session))
  }

  /** Tells whether a node has a responsive session. A stalled one is dialled again: it may answer over another network. */
  #hasSession(peer: string): boolean {
    return this.#responsive().some(({ node }) => node === peer)
  }

  /** Returns the sort key of a node: nodes without a session first, then those with fewer failures. */
  #priority([peer, { failures }]: [string, Candidate]): number {
    return failures + ([...this.#sessions].some(({ node }) => node === peer) ? 1000 : 0)
  }

  async #dial(peer: string, candidate: Candidate): Promise<void> {
    const control = new AbortController()
    const dial: PendingDial = { peer, startedAt: Date.now(), control, isOverdue: false }
    this.#dials.add(dial)
    const timer = setTimeout(() => control.abort(new MeshError('lost', 'the node did not answer within 5 s')), DIAL_TIMEOUT)
    try {
      const session = await this.#dialAny(new Set([...candidate.configured, ...candidate.listed]), control)
      candidate.failures = 0
      candidate.refusal = null
      this.#dials.delete(dial)
      this.#add(session)
    } catch (error) {
      this.#dials.delete(dial)
      if (this.#ended || error === NOT_NEEDED) return
      candidate.refusal = error instanceof MeshError && error.code === 'refused' ? error.message : null
      if (candidate.refusal !== null || !dial.isOverdue) {
        this.#lastError = error instanceof MeshError ? error.message : `no node answers (${error instanceof Error ? error.message : String(error)})`
        this.#backOff(candidate)
      }
      const refusal = this.#refusal()
      if (refusal === null) this.dialMissing()
      else this.#refuse(refusal)
    } finally {
      clearTimeout(timer)
    }
  }

  /**
   * Returns why the token is rejected, once every node has failed; `null` if a node may still accept it or none has
   * rejected it.
   */
  #refusal(): string | null {
    const all = [...this.#candidates.values()]
    const mayConnect = this.#sessions.size > 0 || this.#timelyDials().length > 0 || all.some(({ failures }) => failures === 0)
    return mayConnect ? null : (all.find(({ refusal }) => refusal !== null)?.refusal ?? null)
  }

  #backOff(candidate: Candidate): void {
    candidate.notBefore = Date.now() + Math.min(MIN_BACKOFF * 2 ** candidate.failures, MAX_BACKOFF)
    candidate.failures += 1
  }

  /** Dials all addresses of a node and returns the first session; closes the others. */
  async #dialAny(addresses: Iterable<string>, control: AbortController): Promise<Session> {
    const dials = Array.from(addresses, (address) => this.#connect(address, control.signal))
    const aborted = new Promise<never>((_, reject) => {
      control.signal.addEventListener('abort', () => reject(control.signal.reason), { once: true })
    })
    try {
      const session = await Promise.race([Promise.any(dials), aborted])
      for (const dial of dials) void dial.then((other) => other === session || other.close()).catch(() => {})
      return session
    } catch (error) {
      for (const dial of dials) void dial.then((late) => late.close()).catch(() => {})
      const errors = error instanceof AggregateError ? error.errors : [error]
      throw errors.find((one) => one instanceof MeshError && one.code === 'refused') ?? errors[0]
    } finally {
      // Stops the other dials; the first has completed.
      control.abort()
    }
  }

  #add(session: Session): void {
    if (this.#ended || this.#responsive().length >= SESSIONS || this.#hasSession(session.node)) return session.close()
    this.#sessions.add(session)
    session.mux.onStalled = (isStalled) => this.#setStalled(session, isStalled)
    void session.mux.closed.then((reason) => this.#remove(session, reason))
    if (!this.#active || this.#stalled.has(this.#active)) this.#activate(session)
    if (this.#responsive().length >= SESSIONS) for (const { control } of this.#dials) control.abort(NOT_NEEDED)
    this.dialMissing()
  }

  /** Fails over from a stalled session without closing it: its requests may still be answered. */
  #setStalled(session: Session, isStalled: boolean): void {
    if (isStalled) {
      this.#stalled.add(session)
      const [other] = this.#responsive()
      if (session === this.#active && other) this.#activate(other)
      if (this.#down.has(session.node)) session.mux.end(nodeIsDown())
    } else {
      this.#stalled.delete(session)
      if (this.#active && this.#stalled.has(this.#active)) this.#activate(session)
      const idle = this.#responsive().findLast((one) => one !== this.#active && one.mux.isIdle)
      if (this.#responsive().length > SESSIONS && idle) idle.close()
    }
    this.dialMissing()
  }

  #remove(session: Session, reason: MeshError): void {
    this.#sessions.delete(session)
    this.#stalled.delete(session)
    if (this.#ended) return
    this.#lastError = reason.message
    const candidate = this.#candidates.get(session.node)
    if (candidate) this.#backOff(candidate)
    if (this.#active === session) this.#activate(this.#responsive()[0] ?? [...this.#sessions][0] ?? null)
    this.dialMissing()
  }

  #activate(session: Session | null): void {
    this.#active = session
    this.#listener.onActive(session)
  }

  #refuse(reason: string): void {
    this.close()
    this.#listener.onActive(null)
    this.#listener.onRefused(reason)
  }
}

function nodeIsDown(): MeshError {
  return new MeshError('lost', 'the node is down')
}
