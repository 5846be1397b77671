// What wants a person's eye, with the place on the page where it can be looked at.

import type { ServiceRow, StatusReport } from 'vc-mesh'

import { serviceHref } from './route'

export interface Concern {
  text: string
  /** `null`: it is about a machine, or nothing that has a page. */
  href: string | null
}

/** The node's list, and the updates that failed: those stay until somebody deploys again. */
export function concerns(status: StatusReport | null, services: readonly ServiceRow[]): Concern[] {
  const problems = status?.problems.map((text) => ({ text, href: hrefOf(text, services) })) ?? []
  const failed = services.flatMap(({ service, rollout: { state, reason } }) => {
    if (state !== 'paused' && state !== 'rolled_back') return []
    const what = state === 'paused' ? 'is paused' : 'was rolled back'
    return [{ text: `the update of ${service} ${what}${reason ? `: ${reason}` : ''}`, href: serviceHref(service) }]
  })
  return [...problems, ...failed]
}

/** Problems name what they are about: `shop/web.2 is failed: …`, `port 80/tcp of shop/web is not published …`. */
function hrefOf(text: string, services: readonly ServiceRow[]): string | null {
  const named: string[] = text.match(/[\w-]+\/[\w-]+/g) ?? []
  const service = services.find((row) => named.includes(row.service))
  return service ? serviceHref(service.service) : null
}
