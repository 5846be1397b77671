import { describe, expect, it } from 'vitest'

import type { EventRow, NodeRow } from '../src/types.js'
import { apply, emptyView } from '../src/view.js'

const node = (name: string) => ({ name }) as NodeRow
const event = (time: number): EventRow => ({ time, level: 'info', subject: 'n1', text: 'up' })

describe('the view', () => {
  it('takes the sections that an update brings, and keeps the others as they are', () => {
    const { view: before } = apply(emptyView(), { nodes: [node('n1')], services: [] }, true)
    const { view, changed } = apply(before, { nodes: [node('n1'), node('n2')] })
    expect([...changed]).toEqual(['nodes'])
    expect(view.nodes).toHaveLength(2)
    expect(view.services).toBe(before.services)
    expect(apply(view, {}).changed.size).toBe(0)
  })

  it('appends events, the last 500 of them', () => {
    let { view } = apply(emptyView(), { events: [event(0)] }, true)
    for (let time = 1; time <= 600; time++) view = apply(view, { events: [event(time)] }).view
    expect(view.events).toHaveLength(500)
    expect([view.events[0]?.time, view.events[499]?.time]).toEqual([101, 600])
  })

  it('has events as the node tells them that it is attached to now', () => {
    const { view } = apply(emptyView(), { events: [event(1), event(2)] }, true)
    expect(apply(view, { events: [event(2)] }, true).view.events).toEqual([event(2)])
  })
})
