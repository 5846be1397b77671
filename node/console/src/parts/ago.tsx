import { now } from '../state'
import { ago, moment } from '../units'

/** `3m ago`, and the moment itself to whoever asks. */
export function Ago({ time }: { time: number }) {
  if (time === 0) return <span class="quiet">–</span>
  return (
    <time dateTime={new Date(time).toISOString()} title={moment(time)}>
      {ago(now.value, time)}
    </time>
  )
}
