// A bounded buffer of log lines, oldest dropped first, that can resume an interrupted stream without gaps or duplicates.

import type { LogRow } from 'vc-mesh'

import { escapeBidi } from './bidi'
import { bytes } from './units'

/** Lines kept, at most. */
export const MAX_LINES = 5000

/** Characters shown of a line, at most: a line of a megabyte would stall the page. */
const MAX_LINE_CHARS = 4000

export interface LogLine {
  /** Sequence number of the line in this buffer, from 1. */
  number: number
  replica: number
  node: string
  time: number | null
  isError: boolean
  /** What was lost before this line, as `12 lines`; empty for nothing. */
  lost: string
  text: string
}

export interface LogFilter {
  /** `null` for all replicas. */
  replica: number | null
  /** Matches anywhere in a line, ignoring case; empty matches all. */
  text: string
  /** Whether only lines of standard error match. */
  onlyErrors: boolean
}

/** Lines per instance that the first request asks for. */
export const TAIL = 200

/** Milliseconds by which a line may arrive after a newer one of another instance. A resumed stream overlaps by that much. */
const MAX_REORDER = 2000

/** Lines that arrive later than this after the request, milliseconds, are live; earlier ones may come from the history. */
const HISTORY_PHASE = 2000

/** One instant by two clocks, milliseconds since the epoch. */
interface ClockSample {
  node: number
  local: number
}

/** Lines beyond {@link MAX_LINES} before the oldest are dropped in one batch: dropping moves the whole array. */
const DROP_BATCH = 1000

export class LogBuffer {
  #lines: LogLine[] = []
  #received = 0
  #requestedAt = 0
  /** The largest timestamp of any line. */
  #newest: number | null = null
  /** Each node's clock, sampled with its last live line; until there is one, the local clock. */
  readonly #clocks = new Map<string, ClockSample>()
  /** For each source, the timestamp up to which its lines were dropped or preceded the first request. */
  readonly #droppedUntil = new Map<string, number>()
  /** The same, for sources whose resumed stream has not yet reached the kept lines. */
  #replaying = new Map<string, number>()
  /** Lines that the resumed stream may repeat, with their number. */
  #repeats = new Map<string, number>()

  /** The number of lines ever accepted. */
  get received(): number {
    return this.#received
  }

  /** Returns what to request: the tail at first, later the lines since the last ones, with an overlap that `push` removes. */
  resume(now: number): { tail: number | null; since: number | null } {
    const since = this.#since()
    this.#requestedAt = now
    this.#replaying = new Map(this.#droppedUntil)
    this.#repeats = new Map()
    for (const line of since === null ? this.#tails() : this.#lines.filter((it) => (it.time ?? 0) >= since)) {
      const key = identity(line)
      this.#repeats.set(key, (this.#repeats.get(key) ?? 0) + 1)
    }
    return since === null ? { tail: TAIL, since } : { tail: null, since }
  }

  /** Returns the timestamp from which lines may be missing, by the clock that is furthest behind; `null` if unknown. */
  #since(): number | null {
    if (this.#newest === null) return null
    const clocks = [...this.#clocks.values()]
    const last = Math.max(...clocks.map(({ local }) => local))
    return Math.min(...clocks.map(({ node, local }) => node + last - local), this.#newest) - MAX_REORDER
  }

  /** Appends a line that arrived at `now`, milliseconds since the epoch, unless it is a repeat. */
  push(row: LogRow, now: number): void {
    const line = sanitize(row, this.#received + 1)
    if (this.#wasDropped(line) || this.#isRepeat(line)) return
    this.#received += 1
    if (row.time !== null) this.#sampleClock(row.node, sourceOf(line), row.time, now)
    this.#lines.push(line)
    if (this.#lines.length <= MAX_LINES + DROP_BATCH) return
    for (const it of this.#lines.splice(0, DROP_BATCH + 1)) {
      if (it.time !== null) this.#droppedUntil.set(sourceOf(it), it.time)
    }
  }

  #sampleClock(node: string, source: string, time: number, now: number): void {
    const isLive = now - this.#requestedAt > HISTORY_PHASE
    if (isLive || !this.#clocks.has(node)) this.#clocks.set(node, { node: isLive ? time : now, local: now })
    if (!this.#droppedUntil.has(source)) this.#droppedUntil.set(source, time - 1)
    this.#newest = Math.max(time, this.#newest ?? 0)
  }

  /** Returns whether a line precedes the kept ones of its source: `since` follows the slowest clock, so others send more. */
  #wasDropped(line: LogLine): boolean {
    if (this.#replaying.size === 0 || line.time === null) return false
    const source = sourceOf(line)
    const until = this.#replaying.get(source)
    if (until !== undefined && line.time <= until) return true
    this.#replaying.delete(source)
    return false
  }

  /** Returns whether a line is an expected repeat, and counts it. */
  #isRepeat(line: LogLine): boolean {
    // The common case on a hot path.
    if (this.#repeats.size === 0) return false
    const key = identity(line)
    const remaining = this.#repeats.get(key)
    if (remaining === undefined) return false
    if (remaining > 1) this.#repeats.set(key, remaining - 1)
    else this.#repeats.delete(key)
    return true
  }

  /** Returns the last {@link TAIL} lines of each source, newest first. */
  #tails(): LogLine[] {
    const taken = new Map<string, number>()
    return this.#lines.toReversed().filter((line) => {
      const source = sourceOf(line)
      taken.set(source, (taken.get(source) ?? 0) + 1)
      return (taken.get(source) ?? 0) <= TAIL
    })
  }

  /** Returns a copy of the lines that match the filter and whose number is larger than `after`. */
  lines(filter: LogFilter, after = 0): LogLine[] {
    const text = filter.text.toLowerCase()
    return this.#lines.slice(-MAX_LINES).filter(
      (it) =>
        it.number > after &&
        (filter.replica === null || it.replica === filter.replica) &&
        (!filter.onlyErrors || it.isError) &&
        (text === '' || it.text.toLowerCase().includes(text)),
    )
  }
}

/** Returns the source of a line: a replica on a node. The lines of a source arrive in the order of their timestamps. */
const sourceOf = ({ replica, node }: LogLine): string => `${replica} ${node}`

const identity = (line: LogLine): string => `${sourceOf(line)} ${line.time} ${line.isError} ${line.text}`

/** Terminal escape sequences, and control characters except tab. */
const CONTROL = /\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f-\x9f]/g

function sanitize(row: LogRow, number: number): LogLine {
  const text = row.line.length > MAX_LINE_CHARS ? `${row.line.slice(0, MAX_LINE_CHARS)} …` : row.line
  return {
    number,
    replica: row.replica,
    node: row.node,
    time: row.time,
    isError: row.stream === 'stderr',
    lost: row.lost ? lostText(row.lost) : '',
    text: escapeBidi(text.replace(CONTROL, '')),
  }
}

function lostText({ lines, bytes: size }: NonNullable<LogRow['lost']>): string {
  if (lines === 0) return `${bytes(size)} of lines`
  return lines === 1 ? '1 line' : `${lines} lines`
}

/** Returns lines as the text of a file, each with its time in UTC, replica and stream, separated by spaces. */
export function linesAsText(lines: readonly LogLine[]): string {
  const rows = lines.flatMap(({ time, replica, isError, lost, text }) => [
    ...(lost ? [`# ${lost} lost here`] : []),
    `${time === null ? '-' : new Date(time).toISOString()} ${replica} ${isError ? 'stderr' : 'stdout'} ${text}`,
  ])
  return rows.map((row) => `${row}\n`).join('')
}

/** A range of rows in a virtual list. */
export interface RowRange {
  first: number
  /** Exclusive. */
  end: number
}

/** Rows rendered above and below the visible ones. */
const OVERSCAN = 12

/** Returns the rows of a virtual list to render. Lengths are pixels. */
export function visibleRows(scrollTop: number, height: number, rowHeight: number, total: number): RowRange {
  const first = Math.max(0, Math.floor(scrollTop / rowHeight) - OVERSCAN)
  const end = Math.min(total, Math.ceil((scrollTop + height) / rowHeight) + OVERSCAN)
  return { first: Math.min(first, end), end }
}
