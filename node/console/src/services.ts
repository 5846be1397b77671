// What the rows say of a service, in a word.

import type { InstanceRow, NodeRow, ServiceRow } from 'vc-mesh'

/** How something is: its shape and its colour. */
export type Tone = 'good' | 'busy' | 'idle' | 'warn' | 'bad'

export interface Condition {
  tone: Tone
  word: string
}

/** Services of one project. */
export interface Project {
  name: string
  services: ServiceRow[]
}

/** By project, both in the order of their names. */
export function byProject(services: readonly ServiceRow[]): Project[] {
  const projects = new Map<string, ServiceRow[]>()
  for (const row of services.toSorted((a, b) => a.service.localeCompare(b.service))) {
    const rows = projects.get(row.project)
    if (rows) rows.push(row)
    else projects.set(row.project, [row])
  }
  return [...projects].map(([name, rows]) => ({ name, services: rows }))
}

/** `web` of `shop/web`. */
export function nameOf(service: string): string {
  return service.slice(service.indexOf('/') + 1)
}

export function serviceCondition(row: ServiceRow, instances: readonly InstanceRow[]): Condition {
  if (row.rollout.state === 'updating') return { tone: 'busy', word: 'updating' }
  if (row.rollout.state === 'paused') return { tone: 'bad', word: 'update paused' }
  if (row.replicas === 0) return { tone: 'idle', word: 'scaled to 0' }
  const own = instances.filter((it) => it.service === row.service && it.current)
  const good = own.filter((it) => isGood(it, row)).length
  if (good >= row.replicas) {
    if (row.rollout.state === 'rolled_back') return { tone: 'warn', word: 'rolled back' }
    return { tone: 'good', word: own.every((it) => it.state === 'completed') ? 'completed' : 'healthy' }
  }
  if (own.some((it) => it.state === 'failed' || it.state === 'unhealthy')) {
    return good === 0 ? { tone: 'bad', word: 'failing' } : { tone: 'warn', word: 'degraded' }
  }
  if (own.some((it) => it.node === null)) return { tone: 'warn', word: 'not all placed' }
  return { tone: 'busy', word: 'starting' }
}

/** Whether it does what it is for. Rows of a service count an instance without a healthcheck as healthy when it runs. */
function isGood(it: InstanceRow, row: ServiceRow): boolean {
  if (it.state === 'healthy' || it.state === 'completed') return true
  return it.state === 'running' && row.healthy >= row.running
}

export function instanceCondition(row: InstanceRow): Condition {
  const word = row.current ? row.state : `${row.state}, old`
  switch (row.state) {
    case 'healthy':
      return { tone: 'good', word }
    case 'running':
      return { tone: row.available ? 'good' : 'busy', word }
    case 'completed':
      return { tone: 'idle', word }
    case 'failed':
    case 'unhealthy':
      return { tone: 'bad', word }
    case 'pending':
      return { tone: row.reason ? 'warn' : 'idle', word: row.node ? word : 'no place' }
    case 'pulling':
    case 'starting':
    case 'stopping':
      return { tone: 'busy', word }
  }
}

export function nodeCondition(row: NodeRow): Condition {
  if (row.state === 'down') return { tone: 'bad', word: 'down' }
  if (row.state === 'left') return { tone: 'idle', word: 'left' }
  if (row.problem) return { tone: 'bad', word: 'cannot run' }
  if (row.draining) return { tone: 'busy', word: row.instances > 0 ? 'draining' : 'drained' }
  if (row.unreachable.length > 0) return { tone: 'warn', word: 'up, link lost' }
  return { tone: 'good', word: 'up' }
}

/** `8080:80/tcp`, `127.0.0.1:8080:80/tcp`. */
export interface PublishedPort {
  published: number
  target: number
  protocol: string
}

export function readPort(text: string): PublishedPort | null {
  const match = /(?:^|:)(\d+):(\d+)\/(\w+)$/.exec(text)
  if (!match) return null
  return { published: Number(match[1]), target: Number(match[2]), protocol: match[3] ?? 'tcp' }
}

/** The largest number of replicas that a node takes. */
export const MAX_REPLICAS = 1000

/** How many replicas somebody has typed; `null`: no number, or none that there can be. */
export function readReplicas(text: string): number | null {
  if (!/^\s*\d+\s*$/.test(text)) return null
  const replicas = Number(text)
  return replicas <= MAX_REPLICAS ? replicas : null
}
