// The progress of a deployment, computed from the live view by the rules of `vc deploy --wait`.

import type { InstanceRow, ServiceRow } from 'vc-mesh'

/** A deployed service, as the node reported it that accepted the deployment. */
export interface RolloutTarget {
  service: string
  /** Used until a view contains the service. */
  replicas: number
  /** Number of the deployment; a later one has a higher number. */
  revision: number
  hasHealthcheck: boolean
}

export interface RolloutProgress {
  /** Available instances of the new version. */
  available: number
  /** Desired instances. */
  desired: number
  result: { state: 'waiting' } | { state: 'available' } | { state: 'failed' | 'ended'; reason: string }
}

/** What is known about the targets beside the current view. */
export interface RolloutObservation {
  /** Services that an earlier view contained: if they are missing now, they were removed. */
  seen: ReadonlySet<string>
  /** Services that another deployment has replaced; `null` while unknown for the current view. */
  replaced: ReadonlySet<string> | null
}

/** An instance that failed again after this many restarts is reported as failed. */
const MAX_RESTARTS = 3

/** Computes the progress of a rollout from a view. */
export function rolloutProgress(
  targets: readonly RolloutTarget[],
  services: readonly ServiceRow[],
  instances: readonly InstanceRow[],
  { seen, replaced }: RolloutObservation,
): RolloutProgress {
  let available = 0
  let desired = 0
  let isWaiting = replaced === null
  let failure: string | null = null
  let end: string | null = null
  for (const target of targets) {
    const row = services.find((it) => it.service === target.service)
    if (!row && seen.has(target.service)) end ??= `${target.service} was removed`
    // A view from before the deployment.
    if (!row || row.revision < target.revision) {
      desired += target.replicas
      isWaiting = true
      continue
    }
    const own = instances.filter((it) => it.service === target.service)
    const ready = own.filter((it) => it.current && isAvailable(it, target.hasHealthcheck))
    available += ready.length
    desired += row.replicas
    isWaiting ||= ready.length < row.replicas || ready.length < own.length || row.rollout.state === 'updating'
    if (replaced?.has(target.service)) end ??= `Another deployment replaced ${target.service}`
    else if (replaced) failure ??= failureOf(row, own)
  }
  const counts = { available, desired }
  if (end) return { ...counts, result: { state: 'ended', reason: end } }
  if (failure) return { ...counts, result: { state: 'failed', reason: failure } }
  return { ...counts, result: { state: isWaiting ? 'waiting' : 'available' } }
}

/** Returns a key for the targets' revisions in a view; `null` if the view is older than the deployment. */
export function revisionsOf(
  targets: readonly RolloutTarget[],
  services: readonly ServiceRow[],
  seen: ReadonlySet<string>,
): string | null {
  const revisions: string[] = []
  for (const target of targets) {
    const row = services.find((it) => it.service === target.service)
    if (row ? row.revision < target.revision : !seen.has(target.service)) return null
    revisions.push(`${target.service} ${row?.revision}`)
  }
  return revisions.join()
}

function isAvailable(row: InstanceRow, hasHealthcheck: boolean): boolean {
  const isReady = row.state === 'healthy' || row.state === 'completed' || (row.state === 'running' && !hasHealthcheck)
  return isReady && row.available
}

function failureOf(row: ServiceRow, instances: readonly InstanceRow[]): string | null {
  const { state, reason } = row.rollout
  if (state === 'rolled_back') return `${row.service} was rolled back to the previous version: ${reason}`
  if (state === 'paused') return `The update of ${row.service} is paused: ${reason}`
  const crashed = instances.find((it) => it.current && it.state === 'failed' && it.restarts >= MAX_RESTARTS)
  if (!crashed) return null
  return `${crashed.service}.${crashed.replica} failed (${crashed.reason}) and was restarted ${crashed.restarts} times`
}
