import type { InstanceRow } from 'vc-mesh'

import { instanceCondition } from '../services'
import { count } from '../units'
import { Ago } from './ago'
import { Mark } from './mark'

export function InstanceList({ instances }: { instances: readonly InstanceRow[] }) {
  if (instances.length === 0) return <p class="empty">No instances.</p>
  return (
    <ul class="rows instances">
      {instances.map((row) => (
        <li key={`${row.replica} ${row.node} ${row.digest}`} class={row.current ? 'row' : 'row old'}>
          <h3>
            {row.service}.{row.replica}
          </h3>
          <Mark condition={instanceCondition(row)} />
          <span>{row.node_name ?? <span class="quiet">no node</span>}</span>
          <span class="quiet">
            <Ago time={row.since} />
          </span>
          <span class="quiet">{row.available ? 'proven' : 'not proven yet'}</span>
          <span class={row.restarts > 0 ? '' : 'quiet'}>{count(row.restarts, 'restart')}</span>
          {row.reason && <p class={row.state === 'failed' || row.state === 'unhealthy' ? 'reason bad-text' : 'reason'}>{row.reason}</p>}
        </li>
      ))}
    </ul>
  )
}
