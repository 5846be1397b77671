// The last lines of a log, at most so many: what came first goes first.

import type { LogRow } from 'vc-mesh'

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

/** So many more may wait until they are dropped together: dropping moves all the others. */
const SLACK = 1000

export class LogBuffer {
  #lines: LogLine[] = []
  #received = 0
  #lastTime: number | null = null

  /** Lines that ever came. */
  get received(): number {
    return this.#received
  }

  /** When the youngest line was written; `null`: none says. Milliseconds since the epoch. */
  get lastTime(): number | null {
    return this.#lastTime
  }

  push(row: LogRow): void {
    this.#received += 1
    if (row.time !== null) this.#lastTime = Math.max(row.time, this.#lastTime ?? 0)
    this.#lines.push(readable(row, this.#received))
    if (this.#lines.length > MAX_LINES + SLACK) this.#lines = this.#lines.slice(-MAX_LINES)
  }

  /** Those that pass, as they are now: the list does not change any more. */
  lines(filter: LogFilter): LogLine[] {
    const text = filter.text.toLowerCase()
    return this.#lines.slice(-MAX_LINES).filter(
      (it) =>
        (filter.replica === null || it.replica === filter.replica) &&
        (text === '' || it.text.toLowerCase().includes(text)),
    )
  }
}

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
    text: cut.replace(CONTROL, ''),
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
