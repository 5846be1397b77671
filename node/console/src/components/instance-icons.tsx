import type { InstanceRow } from 'vc-mesh'

import { now } from '../model/state'
import { instanceStatus } from '../model/status'
import { StatusIcon } from './status-badge'

/** Icons shown, at most; the rest is a count. */
const MAX_ICONS = 20

/** Renders one status icon per current instance. Hidden from screen readers: callers add a text. */
export function InstanceIcons({ instances }: { instances: readonly InstanceRow[] }) {
  const current = instances.filter((it) => it.current)
  return (
    <span class="slots" aria-hidden="true">
      {current.slice(0, MAX_ICONS).map((row) => (
        <StatusIcon key={row.replica} tone={instanceStatus(row, now.value).tone} />
      ))}
      {current.length > MAX_ICONS && `+${current.length - MAX_ICONS}`}
    </span>
  )
}
