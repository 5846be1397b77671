import { share } from '../picture'

interface MeterProps {
  /** `CPU`, `Memory`. */
  name: string
  used: number
  reserved: number
  total: number
  write: (amount: number) => string
  unit?: string
}

/** What of something is used and reserved: used is solid, reserved is an outline around it. */
export function Meter({ name, used, reserved, total, write, unit = '' }: MeterProps) {
  return (
    <div class="meter">
      <div class="meter-line">
        <span class="meter-name">{name}</span>
        <span>
          <b>{write(used)}</b> used <span class="quiet">of {write(total)}{unit}</span>
        </span>
      </div>
      <Bar used={share(used, total)} reserved={share(reserved, total)} />
      <div class="meter-foot quiet">{write(reserved)}{unit} reserved</div>
    </div>
  )
}

/** The bar alone; what it says is written beside it. */
export function Bar({ used, reserved }: { used: number; reserved: number }) {
  const percent = (part: number) => `${(part * 100).toFixed(1)}%`
  return (
    <svg class={used > 0.9 ? 'bar full' : 'bar'} aria-hidden="true">
      <rect class="track" width="100%" height="100%" rx="3" />
      <rect class="reserved" width={percent(reserved)} height="100%" rx="3" />
      <rect class="used" width={percent(used)} height="100%" rx="3" />
    </svg>
  )
}
