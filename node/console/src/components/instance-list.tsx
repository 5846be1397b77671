import type { InstanceRow } from 'vc-mesh'

import { logsHref, terminalHref } from '../model/route'
import { now } from '../model/state'
import { instanceStatus } from '../model/status'
import { count } from '../model/units'
import { instanceKey, type Sample } from '../model/usage'
import { RelativeTime } from './relative-time'
import { StatusBadge } from './status-badge'
import { InstanceUsage } from './usage-of'

interface InstanceListProps {
  instances: readonly InstanceRow[]
  /** What they use, by `instanceKey`; not shown if missing. */
  usage?: ReadonlyMap<string, readonly Sample[]>
}

export function InstanceList({ instances, usage }: InstanceListProps) {
  if (instances.length === 0) return <p class="empty">No instances.</p>
  return (
    <ul class="rows instances">
      {instances.map((row) => (
        <li key={`${row.replica} ${row.node} ${row.digest}`} class={row.current ? 'row' : 'row old'}>
          <h3>
            <a href={logsHref(row.service, row.replica)} title={`Log of ${row.service}.${row.replica}`}>
              {row.service}.{row.replica}
            </a>
          </h3>
          <StatusBadge status={instanceStatus(row, now.value)} />
          <span>
            {row.node_name ?? <span class="quiet">no node</span>}
            {row.current && isRunning(row) && (
              <a class="row-link" href={terminalHref(row.service, row.replica)} aria-label={`Shell in ${row.service}.${row.replica}`}>
                Shell
              </a>
            )}
          </span>
          <span class="quiet">
            <RelativeTime time={row.since} />
          </span>
          <span class="quiet">{row.available ? 'available' : 'not available yet'}</span>
          <span class={row.restarts > 0 ? '' : 'quiet'}>{count(row.restarts, 'restart')}</span>
          {usage?.has(instanceKey(row)) && row.current && (
            <InstanceUsage name={`${row.service}.${row.replica}`} samples={usage.get(instanceKey(row)) ?? []} />
          )}
          {row.reason && (
            <p class={row.state === 'failed' || row.state === 'unhealthy' ? 'reason bad-text' : 'reason'}>{row.reason}</p>
          )}
        </li>
      ))}
    </ul>
  )
}

function isRunning({ state }: InstanceRow): boolean {
  return ['running', 'healthy', 'unhealthy'].includes(state)
}
