import { useSignal } from '@preact/signals'
import type { EventRow } from 'vc-mesh'

import { RelativeTime } from '../components/relative-time'
import { StatusBadge } from '../components/status-badge'
import { filterEvents, type Level } from '../model/events'
import { serviceHref } from '../model/route'
import { useSession } from '../model/state'
import type { Status } from '../model/status'
import { timeOfDay } from '../model/units'

const LEVELS: readonly { least: Level; title: string }[] = [
  { least: 'info', title: 'All' },
  { least: 'warning', title: 'Warnings' },
  { least: 'error', title: 'Errors' },
]

const STATUSES: Record<Level, Status> = {
  info: { tone: 'idle', label: 'info' },
  warning: { tone: 'warn', label: 'warning' },
  error: { tone: 'bad', label: 'error' },
}

export function Events() {
  const session = useSession()
  const least = useSignal<Level>('info')
  const text = useSignal('')
  const matching = filterEvents(session.events.value, least.value, text.value)
  return (
    <>
      <div class="view-bar">
        <h1>Events</h1>
        <fieldset class="segments">
          <legend class="visually-hidden">Level</legend>
          {LEVELS.map((it) => (
            <label key={it.least}>
              <input
                type="radio"
                name="level"
                checked={least.value === it.least}
                onChange={() => (least.value = it.least)}
              />
              <span>{it.title}</span>
            </label>
          ))}
        </fieldset>
        <input
          type="search"
          aria-label="Filter events"
          placeholder="Filter events"
          value={text.value}
          onInput={(event) => (text.value = event.currentTarget.value)}
        />
      </div>
      {matching.length === 0 ? (
        <p class="empty">{session.events.value.length === 0 ? 'No events since the node started.' : 'No matching events.'}</p>
      ) : (
        <ol class="rows events">
          {matching.map((row, index) => (
            <Event key={session.events.value.length - index} row={row} />
          ))}
        </ol>
      )}
    </>
  )
}

function Event({ row }: { row: EventRow }) {
  const service = /^([\w-]+\/[\w-]+)(\.\d+)?$/.exec(row.subject)?.[1]
  return (
    <li class="row">
      <span class="event-time">{timeOfDay(row.time)}</span>
      <span class="event-ago quiet">
        <RelativeTime time={row.time} />
      </span>
      <StatusBadge status={STATUSES[row.level]} />
      <span class="event-subject">{service ? <a href={serviceHref(service)}>{row.subject}</a> : row.subject}</span>
      <span class="event-text">{row.text}</span>
    </li>
  )
}
