import type { View } from './api.js'
import type { LiveUpdate } from './types.js'

/** Events that are kept. */
const MAX_EVENTS = 500

/** Nothing is known yet. */
export function emptyView(): View {
  return { status: null, nodes: [], services: [], instances: [], events: [] }
}

/**
 * The view after an update, and what of it is another. Sections that did not change stay the same objects.
 *
 * @param first the first update of a node: it tells of events again that another may have told of
 */
export function applyUpdate(
  view: View,
  update: LiveUpdate,
  first = false,
): { view: View; changed: ReadonlySet<keyof View> } {
  const changed = new Set<keyof View>()
  const next = { ...view }
  if (update.status) {
    next.status = update.status
    changed.add('status')
  }
  for (const section of ['nodes', 'services', 'instances'] as const) {
    const rows = update[section]
    if (!rows) continue
    Object.assign(next, { [section]: rows })
    changed.add(section)
  }
  if (first || (update.events && update.events.length > 0)) {
    next.events = [...(first ? [] : view.events), ...(update.events ?? [])].slice(-MAX_EVENTS)
    changed.add('events')
  }
  return { view: next, changed }
}
