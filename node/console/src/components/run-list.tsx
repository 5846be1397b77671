import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import type { RunRow, ServiceRow } from 'vc-mesh'

import { errorMessage } from '../model/actions'
import { logsHref } from '../model/route'
import { call } from '../model/rpc'
import { runDuration, runName, runStatus } from '../model/runs'
import { now, useSession } from '../model/state'
import { count } from '../model/units'
import { RelativeTime } from './relative-time'
import { StatusBadge } from './status-badge'

/** Shows the runs of a job, the newest first. They are not pushed: they are requested with every change of the job, and as the clock advances. */
export function RunList({ row: { service, running, succeeded, failed } }: { row: ServiceRow }) {
  const session = useSession()
  const runs = useSignal<RunRow[] | null>(null)
  const problem = useSignal('')
  useEffect(() => {
    if (!session.isLive.value) return
    const abort = new AbortController()
    call(session, { op: 'runs', service }, 'runs', abort.signal).then(
      (rows) => {
        runs.value = rows
        problem.value = ''
      },
      (error: unknown) => {
        if (!abort.signal.aborted) problem.value = errorMessage(error)
      },
    )
    return () => abort.abort()
  }, [service, running, succeeded, failed, now.value, session.isLive.value])
  const rows = runs.value
  return (
    <>
      {problem.value && <p class="bad-text">{problem.value}</p>}
      {rows?.length === 0 && <p class="empty">No runs yet.</p>}
      <ul class="rows instances">
        {rows?.map((row) => (
          <Run key={row.run} row={row} />
        ))}
      </ul>
    </>
  )
}

function Run({ row }: { row: RunRow }) {
  const took = runDuration(row, now.value)
  return (
    <li class="row">
      <h3>{runName(row)}</h3>
      <StatusBadge status={runStatus(row)} />
      <span>{row.node_name ?? <span class="quiet">no node</span>}</span>
      <span class="quiet">
        <RelativeTime time={row.ended || row.started} />
        {took && ` (${took})`}
      </span>
      <span class={row.restarts > 0 ? '' : 'quiet'}>{count(row.restarts, 'restart')}</span>
      {row.started > 0 ? <a href={logsHref(row.service, row.run)}>Logs</a> : <span class="quiet">–</span>}
      {row.reason && <p class={row.state === 'failed' ? 'reason bad-text' : 'reason'}>{row.reason}</p>}
    </li>
  )
}
