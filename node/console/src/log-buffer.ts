// The last lines of a log, at most so many: what came first goes first.

import type { LogRow } from 'vc-mesh'

import { withoutTurns } from './bidi'

/** So many lines are kept. */
export const MAX_LINES = 5000

/** What is shown of a line at most: one of a megabyte would stall the page. */
const MAX_SHOWN = 4000

export interface LogLine {
  /** It was the so manieth that came, from 1. */
  number: number
  replica: number
  node: string
  time: number | null
  isError: boolean
  text: string
}

export interface LogFilter {
  /** `null`: of all. */
  replica: number | null
  /** Found anywhere in the line, whatever the case. Empty: everything. */
  text: string
}

/** So many lines of each instance to begin with. */
export const TAIL = 200

/** A line may come so much later than a younger one of another instance, ms: after a pause that much is asked for again. */
const LATE = 2000

/** What comes so long after it was asked for, ms, was written just now: before, it may be what had been written before. */
const CAUGHT_UP = 2000

/** The same instant by two clocks, ms since the epoch: a node's, and this one. */
interface Clock {
  time: number
  at: number
}

/** So many more may wait until they are dropped together: dropping moves all the others. */
const SLACK = 1000

export class LogBuffer {
  #lines: LogLine[] = []
  #received = 0
  #asked = 0
  /** The time of the youngest line. */
  #youngest: number | null = null
  /** What each node's clock says, by the last line that it wrote while it was followed; until then, what this one says. */
  readonly #clocks = new Map<string, Clock>()
  /** Up to when the lines of each source are gone: they were dropped, or came before the first ones. */
  readonly #gone = new Map<string, number>()
  /** The same, of those sources that have not come to what is kept since the pause. */
  #returning = new Map<string, number>()
  /** What may come again after a pause, and how often. */
  #repeats = new Map<string, number>()

  /** Lines that ever came. */
  get received(): number {
    return this.#received
  }

  /** What to ask for: at first the last lines, after a pause what follows those that are there. Lines that come twice are left out. */
  resume(now: number): { tail: number | null; since: number | null } {
    const since = this.#since()
    this.#asked = now
    this.#returning = new Map(this.#gone)
    this.#repeats = new Map()
    for (const line of since === null ? this.#tails() : this.#lines.filter((it) => (it.time ?? 0) >= since)) {
      const same = identity(line)
      this.#repeats.set(same, (this.#repeats.get(same) ?? 0) + 1)
    }
    return since === null ? { tail: TAIL, since } : { tail: null, since }
  }

  /** From when on lines may be missing, by the clock that is furthest behind; `null`: nobody knows. */
  #since(): number | null {
    if (this.#youngest === null) return null
    const known = [...this.#clocks.values()]
    const last = Math.max(...known.map(({ at }) => at))
    return Math.min(...known.map(({ time, at }) => time + last - at), this.#youngest) - LATE
  }

  /** Takes a line that came `now`, milliseconds since the epoch. */
  push(row: LogRow, now: number): void {
    const line = readable(row, this.#received + 1)
    if (this.#isGone(line) || this.#isRepeat(line)) return
    this.#received += 1
    if (row.time !== null) this.#learn(row.node, sourceOf(line), row.time, now)
    this.#lines.push(line)
    if (this.#lines.length <= MAX_LINES + SLACK) return
    for (const it of this.#lines.splice(0, SLACK + 1)) if (it.time !== null) this.#gone.set(sourceOf(it), it.time)
  }

  #learn(node: string, source: string, time: number, now: number): void {
    const isNew = now - this.#asked > CAUGHT_UP
    if (isNew || !this.#clocks.has(node)) this.#clocks.set(node, { time: isNew ? time : now, at: now })
    if (!this.#gone.has(source)) this.#gone.set(source, time - 1)
    this.#youngest = Math.max(time, this.#youngest ?? 0)
  }

  /** Whether it was written before what is kept of its source, and comes only because another node's clock is behind. */
  #isGone(line: LogLine): boolean {
    if (this.#returning.size === 0 || line.time === null) return false
    const source = sourceOf(line)
    const gone = this.#returning.get(source)
    if (gone !== undefined && line.time <= gone) return true
    this.#returning.delete(source)
    return false
  }

  /** Whether it is one of those that may come again; each does so once. */
  #isRepeat(line: LogLine): boolean {
    // Most of the time there are none, and lines come fast.
    if (this.#repeats.size === 0) return false
    const same = identity(line)
    const left = this.#repeats.get(same)
    if (left === undefined) return false
    if (left > 1) this.#repeats.set(same, left - 1)
    else this.#repeats.delete(same)
    return true
  }

  /** The last lines of each instance. */
  #tails(): LogLine[] {
    const taken = new Map<string, number>()
    return this.#lines.toReversed().filter((line) => {
      const source = sourceOf(line)
      taken.set(source, (taken.get(source) ?? 0) + 1)
      return (taken.get(source) ?? 0) <= TAIL
    })
  }

  /** Those that pass, of what came after the so manieth, as they are now: the list does not change any more. */
  lines(filter: LogFilter, after = 0): LogLine[] {
    const text = filter.text.toLowerCase()
    return this.#lines.slice(-MAX_LINES).filter(
      (it) =>
        it.number > after &&
        (filter.replica === null || it.replica === filter.replica) &&
        (text === '' || it.text.toLowerCase().includes(text)),
    )
  }
}

/** Whose line it is; each source's lines come in the order of their times. */
const sourceOf = ({ replica, node }: LogLine): string => `${replica} ${node}`

/** What makes a line that comes again the same. */
const identity = (line: LogLine): string => `${sourceOf(line)} ${line.time} ${line.isError} ${line.text}`

// Colours and cursor movements of terminals, and other control characters than the tab.
const CONTROL = /\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f-\x9f]/g

function readable(row: LogRow, number: number): LogLine {
  const cut = row.line.length > MAX_SHOWN ? `${row.line.slice(0, MAX_SHOWN)} …` : row.line
  return {
    number,
    replica: row.replica,
    node: row.node,
    time: row.time,
    isError: row.stream === 'stderr',
    text: withoutTurns(cut.replace(CONTROL, '')),
  }
}

/** Which rows of a long list are to be drawn: those in sight, and some above and below. */
export interface Window {
  first: number
  /** Behind the last. */
  end: number
}

const OVERSCAN = 12

export function windowOf(scrollTop: number, height: number, rowHeight: number, total: number): Window {
  const first = Math.max(0, Math.floor(scrollTop / rowHeight) - OVERSCAN)
  const end = Math.min(total, Math.ceil((scrollTop + height) / rowHeight) + OVERSCAN)
  return { first: Math.min(first, end), end }
}
