import type { InstanceRow } from 'vc-mesh'

import { now } from '../model/state'
import { instanceStatus } from '../model/status'
import { count } from '../model/units'
import { RelativeTime } from './relative-time'
import { StatusBadge } from './status-badge'

export function InstanceList({ instances }: { instances: readonly InstanceRow[] }) {
  if (instances.length === 0) return <p class="empty">No instances.</p>
  return (
    <ul class="rows instances">
      {instances.map((row) => (
        <li key={`${row.replica} ${row.node} ${row.digest}`} class={row.current ? 'row' : 'row old'}>
          <h3>
            {row.service}.{row.replica}
          </h3>
          <StatusBadge status={instanceStatus(row, now.value)} />
          <span>{row.node_name ?? <span class="quiet">no node</span>}</span>
          <span class="quiet">
            <RelativeTime time={row.since} />
          </span>
          <span class="quiet">{row.available ? 'available' : 'not available yet'}</span>
          <span class={row.restarts > 0 ? '' : 'quiet'}>{count(row.restarts, 'restart')}</span>
          {row.reason && (
            <p class={row.state === 'failed' || row.state === 'unhealthy' ? 'reason bad-text' : 'reason'}>{row.reason}</p>
          )}
        </li>
      ))}
    </ul>
  )
}
