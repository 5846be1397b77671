// What wants a person's eye, with the place on the page where it can be looked at.

import type { NodeRow, ServiceRow, StatusReport } from 'vc-mesh'

import { linkBetween } from './picture'
import { serviceHref } from './route'

export interface Concern {
  text: string
  /** `null`: it is about a node, or nothing that has a page. */
  href: string | null
}

/** The node's list; the links that are cut; the updates that failed: those stay until somebody deploys again. */
export function concerns(
  status: StatusReport | null,
  services: readonly ServiceRow[],
  nodes: readonly NodeRow[],
): Concern[] {
  const problems = status?.problems.map((text) => ({ text, href: hrefOf(text, services) })) ?? []
  const failed = services.flatMap(({ service, rollout: { state, reason } }) => {
    if (state !== 'paused' && state !== 'rolled_back') return []
    const what = state === 'paused' ? 'is paused' : 'was rolled back'
    return [{ text: `the update of ${service} ${what}${reason ? `: ${reason}` : ''}`, href: serviceHref(service) }]
  })
  const up = nodes.filter((row) => row.state === 'up')
  const links = up.flatMap((row, index) => up.slice(index + 1).map((other) => linkBetween(row, other)))
  const cut = links.filter((link) => link.state === 'cut').map((link) => ({ text: link.why, href: null }))
  return [...problems, ...cut, ...failed]
}

/** Problems name what they are about: `shop/web.2 is failed: …`, `port 80/tcp of shop/web is not published …`. */
function hrefOf(text: string, services: readonly ServiceRow[]): string | null {
  const named: string[] = text.match(/[\w-]+\/[\w-]+/g) ?? []
  const service = services.find((row) => named.includes(row.service))
  return service ? serviceHref(service.service) : null
}
