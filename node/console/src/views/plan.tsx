import { useComputed, useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import type { PlanReport } from 'vc-mesh'

import { Placements } from '../components/placements'
import { errorMessage } from '../model/actions'
import { call } from '../model/rpc'
import { type Session, useSession } from '../model/state'
import { count, timeOfDay } from '../model/units'

/** Shows the current plan. It is requested again whenever its input changes in the pushed view. */
export function Plan() {
  const session = useSession()
  const plan = useSignal<{ report: PlanReport; at: number } | null>(null)
  const problem = useSignal('')
  const input = useComputed(() => planInput(session))
  useEffect(() => {
    if (!session.isLive.value) return
    const abort = new AbortController()
    call(session, { op: 'plan', deployments: [] }, 'plan', abort.signal).then(
      (report) => {
        plan.value = { report, at: Date.now() }
        problem.value = ''
      },
      (error: unknown) => {
        if (!abort.signal.aborted) problem.value = errorMessage(error)
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
            As of {timeOfDay(shown.at)}.
          </p>
        </>
      ) : (
        <p class="quiet">Loading the plan…</p>
      )}
    </>
  )
}

function summary(plan: PlanReport): string {
  const placed = `${count(plan.placements.length, 'replica')} placed`
  return plan.unplaced.length === 0 ? placed : `${placed}, ${plan.unplaced.length} unplaced`
}

/** Serializes the part of the view that placement depends on, to detect changes. */
function planInput(session: Session): string {
  const nodes = session.nodes.value.map((row) => [row.id, row.state, row.draining, row.cpu_reserved, row.memory_reserved])
  const services = session.services.value.map((row) => [row.service, row.replicas, row.revision, row.rollout.state])
  const instances = session.instances.value.map((row) => [row.service, row.replica, row.node])
  return JSON.stringify([nodes, services, instances])
}
