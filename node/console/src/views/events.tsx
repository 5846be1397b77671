import { useSignal } from '@preact/signals'
import type { EventRow } from 'vc-mesh'

import { chooseEvents, type Level } from '../events'
import { Ago } from '../parts/ago'
import { Mark } from '../parts/mark'
import { serviceHref } from '../route'
import type { Condition } from '../services'
import { useSession } from '../state'
import { clock } from '../units'

const LEVELS: readonly { least: Level; title: string }[] = [
  { least: 'info', title: 'All' },
  { least: 'warning', title: 'Warnings' },
  { least: 'error', title: 'Errors' },
]

const CONDITIONS: Record<Level, Condition> = {
  info: { tone: 'idle', word: 'info' },
  warning: { tone: 'warn', word: 'warning' },
  error: { tone: 'bad', word: 'error' },
}

export function Events() {
  const session = useSession()
  const least = useSignal<Level>('info')
  const text = useSignal('')
  const chosen = chooseEvents(session.events.value, least.value, text.value)
  return (
    <>
      <div class="view-bar">
        <h1>Events</h1>
        <fieldset class="segments">
          <legend class="unseen">Level</legend>
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
          aria-label="Only events with this text"
          placeholder="Only events with …"
          value={text.value}
          onInput={(event) => (text.value = event.currentTarget.value)}
        />
      </div>
      {chosen.length === 0 ? (
        <p class="empty">{session.events.value.length === 0 ? 'Nothing happened since the node started.' : 'None fit.'}</p>
      ) : (
        <ol class="rows events">
          {chosen.map((row, index) => (
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
      <span class="event-time">{clock(row.time)}</span>
      <span class="event-ago quiet">
        <Ago time={row.time} />
      </span>
      <Mark condition={CONDITIONS[row.level]} />
      <span class="event-subject">{service ? <a href={serviceHref(service)}>{row.subject}</a> : row.subject}</span>
      <span class="event-text">{row.text}</span>
    </li>
  )
}
