// The states of services, instances and nodes as a label and a tone.

import type { InstanceRow, NodeRow, ServiceRow } from 'vc-mesh'

import { duration } from './units'

/** Selects icon and colour. */
export type Tone = 'good' | 'busy' | 'idle' | 'warn' | 'bad'

export interface Status {
  tone: Tone
  label: string
}

export function serviceStatus(row: ServiceRow, instances: readonly InstanceRow[]): Status {
  if (row.rollout.state === 'updating') return { tone: 'busy', label: 'updating' }
  if (row.rollout.state === 'paused') return { tone: 'bad', label: 'update paused' }
  if (row.replicas === 0) return { tone: 'idle', label: 'scaled to 0' }
  const own = instances.filter((it) => it.service === row.service && it.current)
  const ready = own.filter((it) => isReady(it, row)).length
  if (ready >= row.replicas) {
    if (row.rollout.state === 'rolled_back') return { tone: 'warn', label: 'rolled back' }
    if (own.every((it) => it.state === 'completed')) return { tone: 'good', label: 'completed' }
    // Running is not health where nothing checks it.
    return { tone: 'good', label: row.has_healthcheck === false ? 'running' : 'healthy' }
  }
  if (own.some((it) => it.state === 'failed' || it.state === 'unhealthy')) {
    return ready === 0 ? { tone: 'bad', label: 'failing' } : { tone: 'warn', label: 'degraded' }
  }
  if (own.some((it) => it.node === null)) return { tone: 'warn', label: 'not fully placed' }
  return { tone: 'busy', label: 'starting' }
}

/** Returns whether an instance serves. In a service's row, running instances without a healthcheck count as healthy. */
function isReady(it: InstanceRow, row: ServiceRow): boolean {
  if (it.state === 'healthy' || it.state === 'completed') return true
  return it.state === 'running' && !(row.has_healthcheck ?? row.healthy < row.running)
}

/** Returns the status of an instance at `now`, milliseconds since the epoch. */
export function instanceStatus(row: InstanceRow, now: number): Status {
  const label = row.current ? row.state : `${row.state} (old)`
  switch (row.state) {
    case 'healthy':
      return { tone: 'good', label }
    case 'running':
      if (row.available) return { tone: 'good', label }
      return { tone: 'busy', label: row.current ? `running (${missing(row, now)})` : label }
    case 'completed':
      return { tone: 'idle', label }
    case 'failed':
    case 'unhealthy':
      return { tone: 'bad', label }
    case 'pending':
      return { tone: row.reason ? 'warn' : 'idle', label: row.node ? label : 'unplaced' }
    case 'pulling':
    case 'starting':
    case 'stopping':
      return { tone: 'busy', label }
  }
}

/** Returns what a running instance lacks to be available. The remaining time is by the clock of its node. */
function missing({ monitor_ms, since }: InstanceRow, now: number): string {
  if (monitor_ms === 0) return 'not healthy yet'
  const remaining = Math.min(monitor_ms, since + monitor_ms - now)
  return remaining > 0 ? `monitoring ${duration(remaining + 999)}` : 'monitoring'
}

/** Returns the status of one of these nodes. That it cannot reach a node which is down is no problem of its own. */
export function nodeStatus(row: NodeRow, nodes: readonly NodeRow[]): Status {
  if (row.state === 'down') return { tone: 'bad', label: 'down' }
  if (row.state === 'left') return { tone: 'idle', label: 'left' }
  if (row.restarting) return { tone: 'busy', label: 'restarting' }
  if (row.problem) return { tone: 'bad', label: 'runtime unavailable' }
  if (row.draining) return { tone: 'busy', label: row.instances > 0 ? 'draining' : 'drained' }
  if (row.unreachable.some((id) => nodes.find((it) => it.id === id)?.state === 'up')) return { tone: 'warn', label: 'up, link lost' }
  return { tone: 'good', label: 'up' }
}
