import { MeshError } from './api.js'
import type { Session } from './session.js'

/** Sessions to hold: one that is used, one that stands by. */
const SESSIONS = 2
/** Nodes to dial at once while there is no session: the first that answers is used. */
const RACE = 3
/** From the first packet to the welcome. */
const PATIENCE = 5000
/** Before a node is dialled again; twice as long after each failure. */
const FIRST_PAUSE = 200
const LONGEST_PAUSE = 5000
/** Why a dial is ended that was not needed in the end. */
const ENOUGH = new MeshError('aborted', 'others answered first')
/** A dial that has taken longer than this is overdue when the network may be another: it may have gone over the one before. */
const PROMPT = 1000

/** Dials a node and is let in. Errors: `MeshError`; `refused` means that no node will. */
export type Connect = (address: string, signal: AbortSignal) => Promise<Session>

/** What is known of a node that could be dialled. */
interface Candidate {
  /** Where it is, as whoever signed in was told. */
  given: Set<string>
  /** Where it is, as the cluster lists it now. */
  listed: string[]
  failures: number
  /** Why it did not accept the token, when it was asked last. Another may: this one's clock may be wrong. */
  refusal: string | null
  /** Not before this time. */
  from: number
}

/** A node that is being dialled. */
interface Dialling {
  peer: string
  begun: number
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
export class Attachment {
  #active: Session | null = null
  /** All that are held, the eldest first. */
  readonly #sessions = new Set<Session>()
  /** Those of them whose node says nothing at the moment. */
  readonly #quiet = new Set<Session>()
  readonly #candidates = new Map<string, Candidate>()
  readonly #dialling = new Set<Dialling>()
  readonly #connect: Connect
  readonly #listener: Listener
  #timer: ReturnType<typeof setTimeout> | undefined
  #running = false
  #ended = false
  #reason = ''

  constructor(connect: Connect, listener: Listener) {
    this.#connect = connect
    this.#listener = listener
  }

  /** The session that is used; `null`: there is none. */
  get active(): Session | null {
    return this.#active
  }

  /** Remembers where a node is dialled, whatever the cluster lists. The first that it is told of are dialled first. */
  learn(peer: string, address: string): void {
    this.#candidate(peer).given.add(address)
    if (this.#wanted() > 0) this.fill()
  }

  /** Takes the place of what was listed before: addresses come and go. */
  list(addresses: ReadonlyMap<string, string[]>): void {
    for (const peer of addresses.keys()) this.#candidate(peer)
    for (const [peer, candidate] of this.#candidates) candidate.listed = addresses.get(peer) ?? []
    if (this.#wanted() > 0) this.fill()
  }

  /** Every address that it knows: those in use, those that are listed, and the others. */
  known(): string[] {
    const all = [...this.#candidates.values()]
    const used = Array.from(this.#sessions, ({ address }) => address)
    return [...new Set([...used, ...all.flatMap(({ listed }) => listed), ...all.flatMap(({ given }) => [...given])])]
  }

  #candidate(peer: string): Candidate {
    const candidate = this.#candidates.get(peer) ?? { given: new Set(), listed: [], failures: 0, refusal: null, from: 0 }
    this.#candidates.set(peer, candidate)
    return candidate
  }

  /** Begins. Ended, it does not begin again. */
  start(): void {
    this.#running = !this.#ended
    this.fill()
  }

  /** Dials at once whoever waits for his turn, or for an answer that is overdue: the network may be another. */
  retry(): void {
    for (const candidate of this.#candidates.values()) candidate.from = 0
    for (const dialling of this.#dialling) dialling.isOverdue ||= Date.now() - dialling.begun > PROMPT
    this.fill()
  }

  /** Dials what is missing. */
  fill(): void {
    if (!this.#running) return
    clearTimeout(this.#timer)
    const now = Date.now()
    const idle = [...this.#candidates].filter(([peer]) => !this.#dials(peer) && !this.#holds(peer))
    idle.sort((a, b) => this.#rank(a) - this.#rank(b))
    const due = idle.filter(([, candidate]) => candidate.from <= now)
    for (const [peer, candidate] of due.slice(0, Math.max(0, this.#wanted()))) void this.#dial(peer, candidate)
    if (this.#wanted() <= 0) return
    const next = Math.min(...idle.filter(([peer]) => !this.#dials(peer)).map(([, { from }]) => from))
    if (Number.isFinite(next)) this.#timer = setTimeout(() => this.fill(), Math.max(next - now, 0))
    if (!this.#active && this.#dialling.size === 0) this.#listener.onLost(this.#reason, Number.isFinite(next) ? next : now)
  }

  /** Ends all sessions. */
  close(): void {
    this.#running = false
    this.#ended = true
    clearTimeout(this.#timer)
    for (const { control } of this.#dialling) control.abort()
    this.#active = null
    for (const session of [...this.#sessions]) session.close()
  }

  /** How many more nodes to dial now. */
  #wanted(): number {
    const lively = this.#lively().length
    return (lively === 0 ? RACE : SESSIONS - lively) - this.#prompt().length
  }

  /** The dials whose answer is not overdue. */
  #prompt(): Dialling[] {
    return [...this.#dialling].filter(({ isOverdue }) => !isOverdue)
  }

  #dials(peer: string): boolean {
    return this.#prompt().some((dialling) => dialling.peer === peer)
  }

  #lively(): Session[] {
    return [...this.#sessions].filter((session) => !this.#quiet.has(session))
  }

  /** A node that is quiet may be dialled again: over another network, it may answer there. */
  #holds(peer: string): boolean {
    return this.#lively().some(({ node }) => node === peer)
  }

  /** The better the sooner: nodes without a session first, and those that failed less often. */
  #rank([peer, { failures }]: [string, Candidate]): number {
    return failures + ([...this.#sessions].some(({ node }) => node === peer) ? 1000 : 0)
  }

  async #dial(peer: string, candidate: Candidate): Promise<void> {
    const control = new AbortController()
    const dialling: Dialling = { peer, begun: Date.now(), control, isOverdue: false }
    this.#dialling.add(dialling)
    const timer = setTimeout(() => control.abort(new MeshError('lost', 'the node did not answer in time')), PATIENCE)
    try {
      const session = await this.#race(new Set([...candidate.given, ...candidate.listed]), control)
      candidate.failures = 0
      candidate.refusal = null
      this.#dialling.delete(dialling)
      this.#take(session)
    } catch (error) {
      this.#dialling.delete(dialling)
      if (this.#ended || error === ENOUGH) return
      candidate.refusal = error instanceof MeshError && error.code === 'refused' ? error.message : null
      if (candidate.refusal !== null || !dialling.isOverdue) {
        this.#reason = error instanceof MeshError ? error.message : `no node answers (${error instanceof Error ? error.message : String(error)})`
        this.#blame(candidate)
      }
      const refusal = this.#refusal()
      if (refusal === null) this.fill()
      else this.#refuse(refusal)
    } finally {
      clearTimeout(timer)
    }
  }

  /** Why the token is not accepted, once there is nobody left who might; `null`: there is, or nobody said so. */
  #refusal(): string | null {
    const all = [...this.#candidates.values()]
    const isOpen = this.#sessions.size > 0 || this.#prompt().length > 0 || all.some(({ failures }) => failures === 0)
    return isOpen ? null : (all.find(({ refusal }) => refusal !== null)?.refusal ?? null)
  }

  #blame(candidate: Candidate): void {
    candidate.from = Date.now() + Math.min(FIRST_PAUSE * 2 ** candidate.failures, LONGEST_PAUSE)
    candidate.failures += 1
  }

  /** The first of a node's addresses that works; the others are let go. */
  async #race(addresses: Iterable<string>, control: AbortController): Promise<Session> {
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

  #take(session: Session): void {
    if (this.#ended || this.#lively().length >= SESSIONS || this.#holds(session.node)) return session.close()
    this.#sessions.add(session)
    session.mux.onQuiet = (isQuiet) => this.#hush(session, isQuiet)
    void session.mux.closed.then((reason) => this.#lose(session, reason))
    if (!this.#active || this.#quiet.has(this.#active)) this.#use(session)
    if (this.#lively().length >= SESSIONS) for (const { control } of this.#dialling) control.abort(ENOUGH)
    this.fill()
  }

  /** A session that is quiet is not given up, only not used: what was asked on it may still be answered. */
  #hush(session: Session, isQuiet: boolean): void {
    if (isQuiet) {
      this.#quiet.add(session)
      const [other] = this.#lively()
      if (session === this.#active && other) this.#use(other)
    } else {
      this.#quiet.delete(session)
      if (this.#active && this.#quiet.has(this.#active)) this.#use(session)
      const idle = this.#lively().findLast((one) => one !== this.#active && one.mux.isIdle)
      if (this.#lively().length > SESSIONS && idle) idle.close()
    }
    this.fill()
  }

  #lose(session: Session, reason: MeshError): void {
    this.#sessions.delete(session)
    this.#quiet.delete(session)
    if (this.#ended) return
    this.#reason = reason.message
    const candidate = this.#candidates.get(session.node)
    if (candidate) this.#blame(candidate)
    if (this.#active === session) this.#use(this.#lively()[0] ?? [...this.#sessions][0] ?? null)
    this.fill()
  }

  #use(session: Session | null): void {
    this.#active = session
    this.#listener.onActive(session)
  }

  #refuse(reason: string): void {
    this.close()
    this.#listener.onActive(null)
    this.#listener.onRefused(reason)
  }
}
