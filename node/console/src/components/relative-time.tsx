import { now } from '../model/state'
import { dateTime, relativeTime } from '../model/units'

/** Renders a time as `3m ago`, with the date and time as a tooltip. */
export function RelativeTime({ time }: { time: number }) {
  if (time === 0) return <span class="quiet">–</span>
  return (
    <time dateTime={new Date(time).toISOString()} title={dateTime(time)}>
      {relativeTime(now.value, time)}
    </time>
  )
}
