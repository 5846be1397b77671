// Runs of jobs: their states and what they say.

import type { RunRow } from 'vc-mesh'

import type { Status } from './status'
import { dateTime, duration } from './units'

/** Returns whether the instances of a mode are runs, which end. */
export function isJob(mode: string | undefined): boolean {
  return mode?.endsWith('-job') ?? false
}

/** The status of a run, with its exit code where it has failed by one. */
export function runStatus(row: RunRow): Status {
  switch (row.state) {
    case 'succeeded':
      return { tone: 'good', label: row.state }
    case 'failed':
      return { tone: 'bad', label: row.exit_code === null ? row.state : `exit code ${row.exit_code}` }
    case 'running':
      return { tone: 'busy', label: row.state }
    case 'unknown':
    case 'missed':
      return { tone: 'warn', label: row.state }
    case 'pending':
    case 'skipped':
    case 'stopped':
    default:
      return { tone: 'idle', label: row.state }
  }
}

/** The highest number of a slot that is no time of a schedule. */
const MAX_NUMBER = 2 ** 24

/** Names a run: the time of its schedule, or its number. */
export function runName(row: RunRow): string {
  return row.run > MAX_NUMBER ? dateTime(row.run * 1000) : `Run ${row.run}`
}

/** Returns how long a run took, or has taken at `now`; empty before it has begun. */
export function runDuration(row: RunRow, now: number): string {
  if (row.started === 0) return ''
  if (row.ended > 0) return duration(row.ended - row.started)
  return row.state === 'running' ? duration(now - row.started) : ''
}
