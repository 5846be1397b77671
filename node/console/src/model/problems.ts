// Problems that the overview lists, with links to the pages that show more.

import type { NodeRow, ServiceRow, StatusReport } from 'vc-mesh'

import { serviceHref } from './route'
import { linkBetween } from './topology'

export interface Problem {
  text: string
  /** The page of the service; `null` when the problem concerns a node. */
  href: string | null
}

/** Returns the problems that the node reports, and links that are down between live nodes. */
export function findProblems(
  status: StatusReport | null,
  services: readonly ServiceRow[],
  nodes: readonly NodeRow[],
): Problem[] {
  const reported = status?.problems.map((text) => ({ text, href: hrefOf(text, services) })) ?? []
  const up = nodes.filter((row) => row.state === 'up')
  const links = up.flatMap((row, index) => up.slice(index + 1).map((other) => linkBetween(row, other)))
  const unreachable = links.filter((link) => link.state === 'unreachable').map((link) => ({ text: link.problem, href: null }))
  return [...reported, ...unreachable]
}

/** Finds the service that a problem names: `shop/web.2 is failed: …`, `port 80/tcp of shop/web is not published …`. */
function hrefOf(text: string, services: readonly ServiceRow[]): string | null {
  const names: string[] = text.match(/[\w-]+\/[\w-]+/g) ?? []
  const service = services.find((row) => names.includes(row.service))
  return service ? serviceHref(service.service) : null
}
