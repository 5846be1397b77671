import type { InstanceRow } from 'vc-mesh'

import { instanceCondition } from '../services'
import { Shaped } from './mark'

/** So many are drawn; more would say no more. */
const MAX_DRAWN = 20

/** One shape an instance. What they say together is written beside them. */
export function Slots({ instances }: { instances: readonly InstanceRow[] }) {
  const current = instances.filter((it) => it.current)
  return (
    <span class="slots" aria-hidden="true">
      {current.slice(0, MAX_DRAWN).map((row) => (
        <Shaped key={row.replica} tone={instanceCondition(row).tone} />
      ))}
      {current.length > MAX_DRAWN && `+${current.length - MAX_DRAWN}`}
    </span>
  )
}
