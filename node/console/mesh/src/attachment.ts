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

/** Dials a node and is let in. Errors: `MeshError`; `refused` means that no node will. */
export type Connect = (address: string, signal: AbortSignal) => Promise<Session>

/** What is known of a node that could be dialled. */
interface Candidate {
  addresses: Set<string>
  failures: number
  /** Not before this time. */
  from: number
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
  #standby: Session | null = null
  readonly #candidates = new Map<string, Candidate>()
  readonly #dialling = new Map<string, AbortController>()
  readonly #connect: Connect
  readonly #listener: Listener
  #timer: ReturnType<typeof setTimeout> | undefined
  #over = false
  #reason = ''

  constructor(connect: Connect, listener: Listener) {
    this.#connect = connect
    this.#listener = listener
  }

  /** The session that is used; `null`: there is none. */
  get active(): Session | null {
    return this.#active
  }

  /** Remembers where a node is dialled. The first that it is told of are dialled first. */
  learn(peer: string, address: string): void {
    const candidate = this.#candidates.get(peer) ?? { addresses: new Set(), failures: 0, from: 0 }
    this.#candidates.set(peer, candidate)
    if (candidate.addresses.has(address)) return
    candidate.addresses.add(address)
    if (!this.#over && this.#wanted() > 0) this.fill()
  }

  /** Every address that it knows. */
  known(): string[] {
    return [...this.#candidates.values()].flatMap(({ addresses }) => [...addresses])
  }

  /** Dials at once whoever waits for his turn: the network may be another. */
  retry(): void {
    for (const candidate of this.#candidates.values()) candidate.from = 0
    this.fill()
  }

  /** Dials what is missing. */
  fill(): void {
    if (this.#over) return
    clearTimeout(this.#timer)
    const now = Date.now()
    const idle = [...this.#candidates].filter(([peer]) => !this.#dialling.has(peer) && !this.#holds(peer))
    idle.sort(([, a], [, b]) => a.failures - b.failures)
    const due = idle.filter(([, candidate]) => candidate.from <= now)
    for (const [peer, candidate] of due.slice(0, Math.max(0, this.#wanted()))) void this.#dial(peer, candidate)
    if (this.#wanted() <= 0) return
    const next = Math.min(...idle.filter(([peer]) => !this.#dialling.has(peer)).map(([, { from }]) => from))
    if (Number.isFinite(next)) this.#timer = setTimeout(() => this.fill(), Math.max(next - now, 0))
    if (!this.#active && this.#dialling.size === 0) this.#listener.onLost(this.#reason, Number.isFinite(next) ? next : now)
  }

  /** Ends all sessions. */
  close(): void {
    this.#over = true
    clearTimeout(this.#timer)
    for (const dialling of this.#dialling.values()) dialling.abort()
    const [active, standby] = [this.#active, this.#standby]
    this.#active = this.#standby = null
    active?.close()
    standby?.close()
  }

  /** How many more nodes to dial now. */
  #wanted(): number {
    const held = (this.#active ? 1 : 0) + (this.#standby ? 1 : 0)
    return (held === 0 ? RACE : SESSIONS - held) - this.#dialling.size
  }

  #holds(peer: string): boolean {
    return this.#active?.node === peer || this.#standby?.node === peer
  }

  async #dial(peer: string, candidate: Candidate): Promise<void> {
    const control = new AbortController()
    this.#dialling.set(peer, control)
    const timer = setTimeout(() => control.abort(new MeshError('lost', 'the node did not answer in time')), PATIENCE)
    try {
      const session = await this.#race(candidate.addresses, control)
      candidate.failures = 0
      this.#dialling.delete(peer)
      this.#take(session)
    } catch (error) {
      this.#dialling.delete(peer)
      if (this.#over) return
      if (error instanceof MeshError && error.code === 'refused') return this.#refuse(error.message)
      this.#reason = error instanceof MeshError ? error.message : 'no node answers'
      candidate.failures += 1
      candidate.from = Date.now() + Math.min(FIRST_PAUSE * 2 ** (candidate.failures - 1), LONGEST_PAUSE)
      this.fill()
    } finally {
      clearTimeout(timer)
    }
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
    if (this.#over || (this.#active && this.#standby) || this.#holds(session.node)) return session.close()
    void session.mux.closed.then((reason) => this.#lose(session, reason))
    if (this.#active) this.#standby = session
    else this.#use(session)
    if (this.#active && this.#standby) for (const dialling of this.#dialling.values()) dialling.abort()
    this.fill()
  }

  #lose(session: Session, reason: MeshError): void {
    if (this.#over) return
    this.#reason = reason.message
    if (this.#standby === session) this.#standby = null
    if (this.#active === session) {
      const next = this.#standby
      this.#standby = null
      this.#use(next)
    }
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
