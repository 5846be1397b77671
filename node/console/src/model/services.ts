// Names, ports and replica counts of services.

import type { ServiceRow } from 'vc-mesh'

export interface Project {
  name: string
  services: ServiceRow[]
}

/** Groups services by project. Projects and services are sorted by name. */
export function byProject(services: readonly ServiceRow[]): Project[] {
  const projects = new Map<string, ServiceRow[]>()
  for (const row of services.toSorted((a, b) => a.service.localeCompare(b.service))) {
    const rows = projects.get(row.project)
    if (rows) rows.push(row)
    else projects.set(row.project, [row])
  }
  return [...projects].map(([name, rows]) => ({ name, services: rows }))
}

/** Returns `web` for `shop/web`. */
export function nameOf(service: string): string {
  return service.slice(service.indexOf('/') + 1)
}

export interface PublishedPort {
  published: number
  target: number
  protocol: string
}

/** Parses `8080:80/tcp` or `127.0.0.1:8080:80/tcp`. Returns `null` for anything else. */
export function parsePort(text: string): PublishedPort | null {
  const match = /(?:^|:)(\d+):(\d+)\/(\w+)$/.exec(text)
  if (!match) return null
  return { published: Number(match[1]), target: Number(match[2]), protocol: match[3] ?? 'tcp' }
}

/** The largest replica count that nodes accept. */
export const MAX_REPLICAS = 1000

/** Parses a replica count. Returns `null` for anything but an integer from 0 to {@link MAX_REPLICAS}. */
export function parseReplicas(text: string): number | null {
  if (!/^\s*\d+\s*$/.test(text)) return null
  const replicas = Number(text)
  return replicas <= MAX_REPLICAS ? replicas : null
}
