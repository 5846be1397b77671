import { expect, test } from 'vitest'

import { filterEvents } from '../src/model/events'
import { clusterView } from './fixtures'

const { events } = clusterView(1_800_000_000_000)

test('events are filtered by level and text, newest first', () => {
  expect(filterEvents(events, 'info', '')).toHaveLength(40)
  expect(filterEvents(events, 'info', '')[0]).toBe(events.at(-1))
  const levels = new Set(filterEvents(events, 'warning', '').map((it) => it.level))
  expect(levels).toEqual(new Set(['warning', 'error']))
  expect(filterEvents(events, 'error', '')).toHaveLength(8)
  expect(filterEvents(events, 'info', ' GAMMA ').every((it) => it.subject === 'gamma')).toBe(true)
  expect(filterEvents(events, 'info', 'no match')).toEqual([])
  expect(events[0]?.time, 'the input is not reversed').toBeLessThan(events[1]?.time ?? 0)
})
