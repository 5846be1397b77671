import { MeshError } from './api.js'
import type { Session } from './session.js'

/** Sessions to hold: one that is used, one that stands by. */
const SESSIONS = 2
/** Nodes to dial at once while there is no session: the first that answers is used. */
const PARALLEL_DIALS = 3
/** From the first packet to the welcome. */
const DIAL_TIMEOUT = 5000
/** Before a node is dialled again; twice as long after each failure. */
const MIN_BACKOFF = 200
const MAX_BACKOFF = 5000
/** Why a dial is ended that was not needed in the end. */
const NOT_NEEDED = new MeshError('aborted', 'others answered first')
/** A dial that has taken longer than this is overdue when the network may be another: it may have gone over the one before. */
const OVERDUE_AFTER = 1000

/** Dials a node and is let in. Errors: `MeshError`; `refused` means that no node will. */
export type Connect = (address: string, signal: AbortSignal) => Promise<Session>

/** What is known of a node that could be dialled. */
interface Candidate {
  /** Where it is, as whoever signed in was told. */
  configured: Set<string>
  /** Where it is, as the cluster lists it now. */
  listed: string[]
  failures: number
  /** Why it did not accept the token, when it was asked last. Another may: this one's clock may be wrong. */
  refusal: string | null
  /** Not before this time. */
  notBefore: number
}

/** A node that is being dialled. */
interface PendingDial {
  peer: string
  startedAt: number
  control: AbortController
  /** It may still answer; meanwhile it is as if nobody were dialled. */
  isOverdue: boolean
}

/** What the attachment tells. */
export interface Listener {
  /** Another session is used from now on; `null`: there is none. */
  onActive(session: Session | null): void
  /** No node answers; the next is dialled at `retryAt`. */
  onLost(reason: string, retryAt: number): void
  /** The token is not accepted: nothing more is dialled. */
  onRefused(reason: string): void
}

/** Stays attached to the cluster: holds one session that is used and one that stands by, on different nodes. */
export class SessionPool {
  #active: Session | null = null
  /** All that are held, the eldest first. */
  readonly #sessions = new Set<Session>()
  /** Those of them whose node says nothing at the moment. */
  readonly #stalled = new Set<Session>()
  readonly #candidates = new Map<string, Candidate>()
  readonly #dials = new Set<PendingDial>()
  readonly #connect: Connect
  readonly #listener: Listener
  #timer: ReturnType<typeof setTimeout> | undefined
  #running = false
  #ended = false
  #lastError = ''

  constructor(connect: Connect, listener: Listener) {
    this.#connect = connect
    this.#listener = listener
  }

  /** The session that is used; `null`: there is none. */
  get active(): Session | null {
    return this.#active
  }

  /** Remembers where a node is dialled, whatever the cluster lists. The first that it is told of are dialled first. */
  addAddress(peer: string, address: string): void {
    this.#candidate(peer).configured.add(address)
    if (this.#missing() > 0) this.dialMissing()
  }

  /** Takes the place of what was listed before: addresses come and go. */
  setListed(addresses: ReadonlyMap<string, string[]>): void {
    for (const peer of addresses.keys()) this.#candidate(peer)
    for (const [peer, candidate] of this.#candidates) candidate.listed = addresses.get(peer) ?? []
    if (this.#missing() > 0) this.dialMissing()
  }

  /** Every address that it knows: those in use, those that are listed, and the others. */
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

  /** Begins. Ended, it does not begin again. */
  start(): void {
    this.#running = !this.#ended
    this.dialMissing()
  }

  /** Dials at once whoever waits for his turn, or for an answer that is overdue: the network may be another. */
  redial(): void {
    for (const candidate of this.#candidates.values()) candidate.notBefore = 0
    for (const dial of this.#dials) dial.isOverdue ||= Date.now() - dial.startedAt > OVERDUE_AFTER
    this.dialMissing()
  }

  /** Dials what is missing. */
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

  /** Ends all sessions. */
  close(): void {
    this.#running = false
    this.#ended = true
    clearTimeout(this.#timer)
    for (const { control } of this.#dials) control.abort()
    this.#active = null
    for (const session of [...this.#sessions]) session.close()
  }

  /** How many more nodes to dial now. */
  #missing(): number {
    const responsive = this.#responsive().length
    return (responsive === 0 ? PARALLEL_DIALS : SESSIONS - responsive) - this.#timelyDials().length
  }

  /** The dials whose answer is not overdue. */
  #timelyDials(): PendingDial[] {
    return [...this.#dials].filter(({ isOverdue }) => !isOverdue)
  }

  #isDialling(peer: string): boolean {
    return this.#timelyDials().some((dial) => dial.peer === peer)
  }

  #responsive(): Session[] {
    return [...this.#sessions].filter((session) => !this.#stalled.has(session))
  }

  /** A node that is quiet may be dialled again: over another network, it may answer there. */
  #hasSession(peer: string): boolean {
    return this.#responsive().some(({ node }) => node === peer)
  }

  /** The better the sooner: nodes without a session first, and those that failed less often. */
  #priority([peer, { failures }]: [string, Candidate]): number {
    return failures + ([...this.#sessions].some(({ node }) => node === peer) ? 1000 : 0)
  }

  async #dial(peer: string, candidate: Candidate): Promise<void> {
    const control = new AbortController()
    const dial: PendingDial = { peer, startedAt: Date.now(), control, isOverdue: false }
    this.#dials.add(dial)
    const timer = setTimeout(() => control.abort(new MeshError('lost', 'the node did not answer in time')), DIAL_TIMEOUT)
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

  /** Why the token is not accepted, once there is nobody left who might; `null`: there is, or nobody said so. */
  #refusal(): string | null {
    const all = [...this.#candidates.values()]
    const isOpen = this.#sessions.size > 0 || this.#timelyDials().length > 0 || all.some(({ failures }) => failures === 0)
    return isOpen ? null : (all.find(({ refusal }) => refusal !== null)?.refusal ?? null)
  }

  #backOff(candidate: Candidate): void {
    candidate.notBefore = Date.now() + Math.min(MIN_BACKOFF * 2 ** candidate.failures, MAX_BACKOFF)
    candidate.failures += 1
  }

  /** The first of a node's addresses that works; the others are let go. */
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
      // After the first has won, this stops the others only: its own dial is over.
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

  /** A session that is quiet is not configured up, only not used: what was asked on it may still be answered. */
  #setStalled(session: Session, isStalled: boolean): void {
    if (isStalled) {
      this.#stalled.add(session)
      const [other] = this.#responsive()
      if (session === this.#active && other) this.#activate(other)
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
