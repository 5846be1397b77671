import { useComputed, useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import type { PlanReport } from 'vc-mesh'

import { messageOf } from '../actions'
import { ask } from '../ask'
import { Placements } from '../parts/placements'
import { useSession, type Session } from '../state'
import { clock, count } from '../units'

/** Where everything is to run now; asked for again whenever something is pushed that a plan depends on. */
export function Plan() {
  const session = useSession()
  const plan = useSignal<{ report: PlanReport; at: number } | null>(null)
  const problem = useSignal('')
  const input = useComputed(() => planInput(session))
  useEffect(() => {
    if (!session.isLive.value) return
    const abort = new AbortController()
    ask(session, { op: 'plan', deployments: [] }, 'plan', abort.signal).then(
      (report) => {
        plan.value = { report, at: Date.now() }
        problem.value = ''
      },
      (error: unknown) => {
        if (!abort.signal.aborted) problem.value = messageOf(error)
      },
    )
    return () => abort.abort()
  }, [input.value, session.isLive.value])
  const shown = plan.value
  return (
    <>
      <div class="view-bar">
        <h1>Plan</h1>
        {shown && <p class="quiet">{summary(shown.report)}</p>}
      </div>
      {problem.value && <p class="bad-text">{problem.value}</p>}
      {shown ? (
        <>
          <Placements plan={shown.report} />
          <p class="quiet">
            Every node computes the same plan from the same input, <code>{shown.report.input_digest.slice(0, 16)}</code>.
            As of {clock(shown.at)}.
          </p>
        </>
      ) : (
        <p class="quiet">Asking the node …</p>
      )}
    </>
  )
}

function summary(plan: PlanReport): string {
  const placed = `${count(plan.placements.length, 'replica')} placed`
  return plan.unplaced.length === 0 ? placed : `${placed}, ${plan.unplaced.length} without a place`
}

/** What of the view placement depends on, as one text: another text, another plan. */
function planInput(session: Session): string {
  const nodes = session.nodes.value.map((row) => [row.id, row.state, row.draining, row.cpu_reserved, row.memory_reserved])
  const services = session.services.value.map((row) => [row.service, row.replicas, row.updated, row.rollout.state])
  const instances = session.instances.value.map((row) => [row.service, row.replica, row.node])
  return JSON.stringify([nodes, services, instances])
}
