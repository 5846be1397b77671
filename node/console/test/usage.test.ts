import { describe, expect, it } from 'vitest'

import { linePoints, MAX_SAMPLES, nodeSamples, UsageHistory } from '../src/model/usage'
import { clusterView, ID } from './fixtures'

const sample = (time: number) => ({ time, cpu: time, memory: 0 })

describe('UsageHistory', () => {
  it('keeps the last samples of what is reported', () => {
    const history = new UsageHistory()
    for (let time = 0; time < MAX_SAMPLES + 5; time += 1) history.add(new Map([['a', sample(time)]]))
    const samples = history.samples.value.get('a') ?? []
    expect(samples.length).toBe(MAX_SAMPLES)
    expect([samples[0]?.time, samples.at(-1)?.time]).toEqual([5, MAX_SAMPLES + 4])
    history.add(new Map([['b', sample(1)]]))
    expect([...history.samples.value.keys()]).toEqual(['b'])
  })

  it('takes no sample twice', () => {
    const history = new UsageHistory()
    for (const time of [1, 1, 2, 2]) history.add(new Map([['a', sample(time)]]))
    expect(history.samples.value.get('a')?.map((it) => it.time)).toEqual([1, 2])
  })

  it('has one sample of a node in two seconds', () => {
    const { nodes } = clusterView(0)
    const times = [10_000, 10_500, 11_999, 12_000].map((now) => nodeSamples(nodes, now).get(ID.alpha)?.time)
    expect(times).toEqual([10_000, 10_000, 10_000, 12_000])
  })
})

describe('linePoints', () => {
  it('ends at the right, with the largest value at the top', () => {
    const width = MAX_SAMPLES - 1
    expect(linePoints([0, 5, 10], 10, width, 20)).toBe(`${width - 2}.0,20.0 ${width - 1}.0,10.0 ${width}.0,0.0`)
    expect(linePoints([0, 0], 0, width, 20)).toBe(`${width - 1}.0,20.0 ${width}.0,20.0`)
  })
})
