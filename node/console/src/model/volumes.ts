// The state of volumes and of their copies, as `vc volume ls` says it.

import type { ReplicaRow, VolumeRow } from 'vc-mesh'

import type { Status } from './status'
import { bytes, count, duration, fraction } from './units'

/** A replica that is further behind is a problem, as in `vc status`; in milliseconds. */
export const MAX_LAG = 60_000

/** Returns the state of a volume as a whole. What keeps it from being ok is told, worst first. */
export function volumeStatus(row: VolumeRow): Status {
  if (!row.up) return { tone: 'bad', label: 'primary down' }
  if (row.problem) return { tone: 'bad', label: 'no snapshots' }
  if (row.replicas.some((it) => it.state === 'failed')) return { tone: 'bad', label: 'copy failing' }
  const copies = 1 + row.replicas.filter((it) => it.snapshot !== null && it.state !== 'down').length
  if (row.snapshot !== null && copies < row.wanted) {
    const isCopying = row.replicas.some((it) => it.state === 'copying')
    return { tone: isCopying ? 'busy' : 'warn', label: `${copies} of ${count(row.wanted, 'copy', 'copies')}` }
  }
  if (row.replicas.some(isLate)) return { tone: 'warn', label: 'copy behind' }
  if (row.conflicts > 0) return { tone: 'warn', label: count(row.conflicts, 'conflict') }
  return { tone: 'good', label: 'ok' }
}

/** Returns the state of a copy: `up to date`, `12s behind`, `copying 45 %`. `total` is the size of the volume. */
export function replicaStatus(row: ReplicaRow, total: number): Status {
  switch (row.state) {
    case 'down':
      return { tone: 'bad', label: 'down' }
    case 'failed':
      return { tone: 'bad', label: 'failing' }
    case 'copying':
      return { tone: 'busy', label: row.received > 0 ? `copying ${progress(row, total)}` : 'copying' }
    case 'current':
    case 'behind':
      if (row.lag_ms === null || row.lag_ms === 0) return { tone: 'good', label: 'up to date' }
      return { tone: isLate(row) ? 'warn' : 'good', label: `${duration(row.lag_ms)} behind` }
  }
}

function isLate(row: ReplicaRow): boolean {
  return row.state !== 'down' && row.lag_ms !== null && row.lag_ms > MAX_LAG
}

/** Formats what has arrived of a first copy: `45 %, 1.2 GiB of 2.7 GiB`. */
function progress(row: ReplicaRow, total: number): string {
  return `${Math.floor(fraction(row.received, total) * 100)} %, ${bytes(row.received)} of ${bytes(total)}`
}

/** Returns what is wrong with a volume and its copies, each with the node. */
export function volumeProblems(row: VolumeRow): string[] {
  const own = row.problem ? [`${row.primary}: ${row.problem}`] : []
  return [...own, ...row.replicas.filter((it) => it.problem).map((it) => `${it.node_name}: ${it.problem}`)]
}

/** Parses the id of a snapshot, `EPOCH-NUMBER`. Returns `null` for anything else. */
export function snapshotId(text: string): { epoch: number; number: number } | null {
  const match = /^(\d+)-(\d+)$/.exec(text)
  return match ? { epoch: Number(match[1]), number: Number(match[2]) } : null
}
