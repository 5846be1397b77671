// The filter of the events view.

import type { EventRow } from 'vc-mesh'

export type Level = EventRow['level']

const RANK: Record<Level, number> = { info: 0, warning: 1, error: 2 }

/** Returns the events of at least `level` that contain `text`, ignoring case, newest first. */
export function filterEvents(events: readonly EventRow[], level: Level, text: string): EventRow[] {
  const needle = text.trim().toLowerCase()
  const matches = (it: EventRow) =>
    RANK[it.level] >= RANK[level] && (needle === '' || `${it.subject} ${it.text}`.toLowerCase().includes(needle))
  return events.filter(matches).reverse()
}
