import { describe, expect, it } from 'vitest'

import type { EventRow, NodeRow } from '../src/types.js'
import { applyUpdate, emptyView } from '../src/view.js'

const node = (name: string) => ({ name }) as NodeRow
const event = (time: number): EventRow => ({ time, level: 'info', subject: 'n1', text: 'up' })

describe('applyUpdate', () => {
  it('replaces the sections of an update and keeps the others', () => {
    const { view: before } = applyUpdate(emptyView(), { nodes: [node('n1')], services: [] }, true)
    const { view, changed } = applyUpdate(before, { nodes: [node('n1'), node('n2')] })
    expect([...changed]).toEqual(['nodes'])
    expect(view.nodes).toHaveLength(2)
    expect(view.services).toBe(before.services)
    expect(applyUpdate(view, {}).changed.size).toBe(0)
  })

  it('appends events and keeps the last 500', () => {
    let { view } = applyUpdate(emptyView(), { events: [event(0)] }, true)
    for (let time = 1; time <= 600; time++) view = applyUpdate(view, { events: [event(time)] }).view
    expect(view.events).toHaveLength(500)
    expect([view.events[0]?.time, view.events[499]?.time]).toEqual([101, 600])
  })

  it('replaces the events on the first update of a node', () => {
    const { view } = applyUpdate(emptyView(), { events: [event(1), event(2)] }, true)
    expect(applyUpdate(view, { events: [event(2)] }, true).view.events).toEqual([event(2)])
  })
})
