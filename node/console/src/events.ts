// Which events are shown.

import type { EventRow } from 'vc-mesh'

export type Level = EventRow['level']

const RANK: Record<Level, number> = { info: 0, warning: 1, error: 2 }

/** Those of this level or a worse one about which `text` is found; newest first. */
export function chooseEvents(events: readonly EventRow[], least: Level, text: string): EventRow[] {
  const sought = text.trim().toLowerCase()
  const fits = (it: EventRow) =>
    RANK[it.level] >= RANK[least] && (sought === '' || `${it.subject} ${it.text}`.toLowerCase().includes(sought))
  return events.filter(fits).reverse()
}
