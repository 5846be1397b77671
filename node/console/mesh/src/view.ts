import type { View } from './api.js'
import type { LiveUpdate } from './types.js'

/** Maximum number of events in a view. */
const MAX_EVENTS = 500

/** Returns a view without any rows. */
export function emptyView(): View {
  return { status: null, nodes: [], services: [], instances: [], events: [] }
}

/**
 * Returns the view after an update, and the sections that changed. Unchanged sections remain the same objects.
 *
 * @param first whether it is the first update of a node, which repeats events that another node may have sent
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
