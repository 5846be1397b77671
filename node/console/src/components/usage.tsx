import { fraction } from '../model/units'

interface UsageProps {
  /** `CPU`, `Memory`. */
  name: string
  used: number
  /** `null` if it cannot be reserved. */
  reserved: number | null
  total: number
  format: (amount: number) => string
  unit?: string
}

/** Shows how much of a resource is used and reserved. */
export function Usage({ name, used, reserved, total, format, unit = '' }: UsageProps) {
  return (
    <div class="usage">
      <div class="usage-line">
        <span class="usage-name">{name}</span>
        <span>
          <b>{format(used)}</b> used <span class="quiet">of {format(total)}{unit}</span>
        </span>
      </div>
      <UsageBar used={fraction(used, total)} reserved={fraction(reserved ?? 0, total)} />
      {reserved !== null && <div class="usage-foot quiet">{format(reserved)}{unit} reserved</div>}
    </div>
  )
}

/** Renders used (solid) and reserved (outlined) fractions, 0..1. Hidden from screen readers: callers add a text. */
export function UsageBar({ used, reserved }: { used: number; reserved: number }) {
  const percent = (part: number) => `${(part * 100).toFixed(1)}%`
  return (
    <svg class={used > 0.9 ? 'bar full' : 'bar'} aria-hidden="true">
      <rect class="track" width="100%" height="100%" rx="3" />
      <rect class="reserved" width={percent(reserved)} height="100%" rx="3" />
      <rect class="used" width={percent(used)} height="100%" rx="3" />
    </svg>
  )
}
