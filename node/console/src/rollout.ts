// How far a deployment is: the same judgement that `vc deploy --wait` makes, over the pushed view.

import type { InstanceRow, ServiceRow } from 'vc-mesh'

/** A service that was deployed, as the node knows it that took it: another may not have heard of it yet. */
export interface Wanted {
  service: string
  replicas: number
  /** Its revision. */
  updated: number
  /** Whether it has a healthcheck. */
  checked: boolean
}

export interface Standing {
  running: number
  wanted: number
  verdict: { state: 'waiting' } | { state: 'settled' } | { state: 'failed'; reason: string }
}

/** An instance that was started again so often and failed again will not get better by itself. */
const HOPELESS = 3

export function standing(
  wanted: readonly Wanted[],
  services: readonly ServiceRow[],
  instances: readonly InstanceRow[],
): Standing {
  let running = 0
  let waits = false
  let failure: string | null = null
  for (const it of wanted) {
    const row = services.find((row) => row.service === it.service)
    if (!row || row.updated < it.updated) {
      waits = true
      continue
    }
    const own = instances.filter((row) => row.service === it.service)
    const good = own.filter((row) => row.current && isProven(row, it.checked))
    running += good.length
    waits ||= good.length < it.replicas || good.length < own.length || row.rollout.state === 'updating'
    failure ??= failureOf(row, own)
  }
  const total = wanted.reduce((sum, it) => sum + it.replicas, 0)
  if (failure) return { running, wanted: total, verdict: { state: 'failed', reason: failure } }
  return { running, wanted: total, verdict: { state: waits ? 'waiting' : 'settled' } }
}

function isProven(row: InstanceRow, checked: boolean): boolean {
  const good = row.state === 'healthy' || row.state === 'completed' || (row.state === 'running' && !checked)
  return good && row.settled
}

function failureOf(row: ServiceRow, instances: readonly InstanceRow[]): string | null {
  const { state, reason } = row.rollout
  if (state === 'rolled_back') return `${row.service} was rolled back to the version before: ${reason}`
  if (state === 'paused') return `The update of ${row.service} is paused: ${reason}`
  const lost = instances.find((it) => it.current && it.state === 'failed' && it.restarts >= HOPELESS)
  if (!lost) return null
  return `${lost.service}.${lost.replica} failed (${lost.reason}) and was started again ${lost.restarts} times`
}
