// How far a deployment is: the same judgement that `vc deploy --wait` makes, over the pushed view.

import type { InstanceRow, ServiceRow } from 'vc-mesh'

/** A service that was deployed, as the node knows it that took it: another may not have heard of it yet. */
export interface Wanted {
  service: string
  /** As long as no view has it. */
  replicas: number
  /** Its revision. */
  updated: number
  /** Whether it has a healthcheck. */
  checked: boolean
}

export interface Standing {
  running: number
  wanted: number
  verdict: { state: 'waiting' } | { state: 'settled' } | { state: 'failed' | 'over'; reason: string }
}

/** What a view alone does not tell of services that were deployed. */
export interface Fate {
  /** Those that a view had once: if one has them no more, they were removed. */
  seen: ReadonlySet<string>
  /** Those that something else was deployed for meanwhile; `null`: not known yet for this view. */
  replaced: ReadonlySet<string> | null
}

/** An instance that was started again so often and failed again will not get better by itself. */
const HOPELESS = 3

export function standing(
  wanted: readonly Wanted[],
  services: readonly ServiceRow[],
  instances: readonly InstanceRow[],
  { seen, replaced }: Fate,
): Standing {
  let running = 0
  let total = 0
  let waits = replaced === null
  let failure: string | null = null
  let end: string | null = null
  for (const it of wanted) {
    const row = services.find((row) => row.service === it.service)
    if (!row && seen.has(it.service)) end ??= `${it.service} was removed`
    if (!row || row.updated < it.updated) {
      total += it.replicas
      waits = true
      continue
    }
    const own = instances.filter((row) => row.service === it.service)
    const good = own.filter((row) => row.current && isProven(row, it.checked))
    running += good.length
    // Somebody may have scaled it since.
    total += row.replicas
    waits ||= good.length < row.replicas || good.length < own.length || row.rollout.state === 'updating'
    if (replaced?.has(it.service)) end ??= `Another deployment has replaced that of ${it.service}`
    else if (replaced) failure ??= failureOf(row, own)
  }
  const so = { running, wanted: total }
  if (end) return { ...so, verdict: { state: 'over', reason: end } }
  if (failure) return { ...so, verdict: { state: 'failed', reason: failure } }
  return { ...so, verdict: { state: waits ? 'waiting' : 'settled' } }
}

/** The revisions of what was deployed in a view that knows of all of it; `null`: this one does not yet. */
export function revisionsOf(
  wanted: readonly Wanted[],
  services: readonly ServiceRow[],
  seen: ReadonlySet<string>,
): string | null {
  const revisions: string[] = []
  for (const it of wanted) {
    const row = services.find((row) => row.service === it.service)
    if (row ? row.updated < it.updated : !seen.has(it.service)) return null
    revisions.push(`${it.service} ${row?.updated}`)
  }
  return revisions.join()
}

function isProven(row: InstanceRow, checked: boolean): boolean {
  const good = row.state === 'healthy' || row.state === 'completed' || (row.state === 'running' && !checked)
  return good && row.available
}

function failureOf(row: ServiceRow, instances: readonly InstanceRow[]): string | null {
  const { state, reason } = row.rollout
  if (state === 'rolled_back') return `${row.service} was rolled back to the version before: ${reason}`
  if (state === 'paused') return `The update of ${row.service} is paused: ${reason}`
  const lost = instances.find((it) => it.current && it.state === 'failed' && it.restarts >= HOPELESS)
  if (!lost) return null
  return `${lost.service}.${lost.replica} failed (${lost.reason}) and was started again ${lost.restarts} times`
}
