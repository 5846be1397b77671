import { expect, test } from 'vitest'
import type { InstanceRow, ServiceRow } from 'vc-mesh'

import { revisionsOf, standing, type Fate, type Wanted } from '../src/rollout'

const wanted: Wanted = { service: 'shop/web', replicas: 2, updated: 100, checked: false }

const service: ServiceRow = {
  service: 'shop/web',
  project: 'shop',
  image: 'web:2',
  replicas: 2,
  running: 2,
  healthy: 2,
  on_partition: 'available',
  updated: 100,
  ports: [],
  rollout: { state: 'complete', done: 2, reason: '' },
}

function instance(replica: number, more: Partial<InstanceRow> = {}): InstanceRow {
  return {
    service: 'shop/web',
    replica,
    node: 'n1',
    node_name: 'alpha',
    state: 'running',
    reason: '',
    address: '',
    restarts: 0,
    since: 1,
    current: true,
    available: true,
    digest: 'd',
    ...more,
  }
}

/** It is as it was deployed. */
const kept: Fate = { seen: new Set(['shop/web']), replaced: new Set() }
const both = [instance(1), instance(2)]
const state = (rows: InstanceRow[], row: Partial<ServiceRow> = {}, want: Partial<Wanted> = {}) =>
  standing([{ ...wanted, ...want }], [{ ...service, ...row }], rows, kept).verdict.state

test('a deployment has settled when everything new runs and is proven, and nothing old is left', () => {
  expect(standing([wanted], [service], both, kept)).toEqual({ running: 2, wanted: 2, verdict: { state: 'settled' } })
  expect(state([instance(1)]), 'one is missing').toBe('waiting')
  expect(state([instance(1), instance(2, { available: false })]), 'one is not proven').toBe('waiting')
  expect(state([...both, instance(2, { current: false, state: 'stopping' })]), 'an old one is left').toBe('waiting')
  expect(state(both, { rollout: { state: 'updating', done: 1, reason: '' } })).toBe('waiting')
  expect(state(both, {}, { checked: true }), 'it runs, and is not healthy').toBe('waiting')
})

test('nothing is judged by a view from before the deployment', () => {
  expect(state(both, { updated: 99, rollout: { state: 'rolled_back', done: 2, reason: 'an earlier one' } })).toBe('waiting')
  expect(standing([wanted], [], [], { ...kept, seen: new Set() }).verdict.state).toBe('waiting')
})

test('a failure is told with its reason', () => {
  const failed = (rows: InstanceRow[], row: Partial<ServiceRow> = {}) => {
    const { verdict } = standing([wanted], [{ ...service, ...row }], rows, kept)
    return verdict.state === 'failed' ? verdict.reason : verdict.state
  }
  expect(failed(both, { rollout: { state: 'rolled_back', done: 0, reason: 'exited with code 1' } })).toMatch(/rolled back.*code 1/)
  expect(failed(both, { rollout: { state: 'paused', done: 0, reason: 'not healthy' } })).toMatch(/paused: not healthy/)
  const hopeless = instance(1, { state: 'failed', available: false, restarts: 3, reason: 'exited with code 2' })
  expect(failed([hopeless, instance(2)])).toMatch(/shop\/web\.1 failed \(exited with code 2\).*3 times/)
  expect(failed([{ ...hopeless, restarts: 2 }, instance(2)]), 'it may still come').toBe('waiting')
})

test('a service that was removed meanwhile is not waited for', () => {
  expect(standing([wanted], [], [], kept).verdict).toEqual({ state: 'over', reason: 'shop/web was removed' })
})

test('what somebody has scaled meanwhile settles with as many as are wanted now', () => {
  const scaled = (replicas: number) => standing([wanted], [{ ...service, replicas }], both.slice(0, replicas), kept)
  expect(scaled(1)).toEqual({ running: 1, wanted: 1, verdict: { state: 'settled' } })
  expect(scaled(0)).toEqual({ running: 0, wanted: 0, verdict: { state: 'settled' } })
  expect(scaled(3)).toEqual({ running: 2, wanted: 3, verdict: { state: 'waiting' } })
})

test('what another deployment has replaced is neither settled nor failed', () => {
  const fate = (replaced: Fate['replaced'], row: Partial<ServiceRow> = {}) =>
    standing([wanted], [{ ...service, updated: 101, ...row }], both, { ...kept, replaced }).verdict
  const failure: ServiceRow['rollout'] = { state: 'paused', done: 0, reason: 'theirs' }
  expect(fate(null).state, 'nobody knows yet whose revision this is').toBe('waiting')
  expect(fate(null, { rollout: failure }).state).toBe('waiting')
  expect(fate(new Set(['shop/web']), { rollout: failure })).toEqual({
    state: 'over',
    reason: 'Another deployment has replaced that of shop/web',
  })
})

test('only a view that knows of the whole deployment tells its revisions', () => {
  const nobody = new Set<string>()
  expect(revisionsOf([wanted], [{ ...service, updated: 99 }], nobody)).toBeNull()
  expect(revisionsOf([wanted], [], nobody)).toBeNull()
  const [ours, theirs] = [100, 101].map((updated) => revisionsOf([wanted], [{ ...service, updated }], nobody))
  expect(ours).not.toBeNull()
  expect(theirs).not.toBe(ours)
  expect(revisionsOf([wanted], [], kept.seen), 'removed').not.toBe(ours)
})
