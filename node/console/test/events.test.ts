import { expect, test } from 'vitest'

import { chooseEvents } from '../src/events'
import { scene } from './scene'

const { events } = scene(1_800_000_000_000)

test('events are shown newest first, from a level on, by what they are about', () => {
  expect(chooseEvents(events, 'info', '')).toHaveLength(40)
  expect(chooseEvents(events, 'info', '')[0]).toBe(events.at(-1))
  const levels = new Set(chooseEvents(events, 'warning', '').map((it) => it.level))
  expect(levels).toEqual(new Set(['warning', 'error']))
  expect(chooseEvents(events, 'error', '')).toHaveLength(8)
  expect(chooseEvents(events, 'info', ' GAMMA ').every((it) => it.subject === 'gamma')).toBe(true)
  expect(chooseEvents(events, 'info', 'nobody')).toEqual([])
  expect(events[0]?.time, 'the list itself is not turned').toBeLessThan(events[1]?.time ?? 0)
})
