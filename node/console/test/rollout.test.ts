import { expect, test } from 'vitest'
import type { InstanceRow, ServiceRow } from 'vc-mesh'

import { revisionsOf, type RolloutObservation, rolloutProgress, type RolloutTarget } from '../src/model/rollout'

const target: RolloutTarget = { service: 'shop/web', replicas: 2, revision: 100, hasHealthcheck: false }

const service: ServiceRow = {
  service: 'shop/web',
  project: 'shop',
  image: 'web:2',
  replicas: 2,
  running: 2,
  healthy: 2,
  on_partition: 'available',
  updated: 1,
  revision: 100,
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
    monitor_ms: 0,
    digest: 'd',
    terminal: false,
    ...more,
  }
}

/** The deployment has not been replaced. */
const unchanged: RolloutObservation = { seen: new Set(['shop/web']), replaced: new Set() }
const both = [instance(1), instance(2)]
const state = (rows: InstanceRow[], row: Partial<ServiceRow> = {}, more: Partial<RolloutTarget> = {}) =>
  rolloutProgress([{ ...target, ...more }], [{ ...service, ...row }], rows, unchanged).result.state

test('a deployment is available when all new instances are available and no old ones remain', () => {
  expect(rolloutProgress([target], [service], both, unchanged)).toEqual({ available: 2, desired: 2, result: { state: 'available' } })
  expect(state([instance(1)]), 'one is missing').toBe('waiting')
  expect(state([instance(1), instance(2, { available: false })]), 'one is not available').toBe('waiting')
  expect(state([...both, instance(2, { current: false, state: 'stopping' })]), 'an old instance remains').toBe('waiting')
  expect(state(both, { rollout: { state: 'updating', done: 1, reason: '' } })).toBe('waiting')
  expect(state(both, {}, { hasHealthcheck: true }), 'running, not healthy').toBe('waiting')
})

test('a view from before the deployment has no result', () => {
  expect(state(both, { revision: 99, rollout: { state: 'rolled_back', done: 2, reason: 'an earlier one' } })).toBe('waiting')
  expect(rolloutProgress([target], [], [], { ...unchanged, seen: new Set() }).result.state).toBe('waiting')
})

test('a failure has a reason', () => {
  const failed = (rows: InstanceRow[], row: Partial<ServiceRow> = {}) => {
    const { result } = rolloutProgress([target], [{ ...service, ...row }], rows, unchanged)
    return result.state === 'failed' ? result.reason : result.state
  }
  expect(failed(both, { rollout: { state: 'rolled_back', done: 0, reason: 'exited with code 1' } })).toMatch(/rolled back.*code 1/)
  expect(failed(both, { rollout: { state: 'paused', done: 0, reason: 'not healthy' } })).toMatch(/paused: not healthy/)
  const crashed = instance(1, { state: 'failed', available: false, restarts: 3, reason: 'exited with code 2' })
  expect(failed([crashed, instance(2)])).toMatch(/shop\/web\.1 failed \(exited with code 2\).*3 times/)
  expect(failed([{ ...crashed, restarts: 2 }, instance(2)]), 'below the restart limit').toBe('waiting')
})

test('a removed service ends the rollout', () => {
  expect(rolloutProgress([target], [], [], unchanged).result).toEqual({ state: 'ended', reason: 'shop/web was removed' })
})

test('a service scaled during the rollout is available with the new replica count', () => {
  const scaled = (replicas: number) => rolloutProgress([target], [{ ...service, replicas }], both.slice(0, replicas), unchanged)
  expect(scaled(1)).toEqual({ available: 1, desired: 1, result: { state: 'available' } })
  expect(scaled(0)).toEqual({ available: 0, desired: 0, result: { state: 'available' } })
  expect(scaled(3)).toEqual({ available: 2, desired: 3, result: { state: 'waiting' } })
})

test('a replaced deployment is neither available nor failed', () => {
  const result = (replaced: RolloutObservation['replaced'], row: Partial<ServiceRow> = {}) =>
    rolloutProgress([target], [{ ...service, revision: 101, ...row }], both, { ...unchanged, replaced }).result
  const failure: ServiceRow['rollout'] = { state: 'paused', done: 0, reason: 'theirs' }
  expect(result(null).state, 'the revision has not been checked yet').toBe('waiting')
  expect(result(null, { rollout: failure }).state).toBe('waiting')
  expect(result(new Set(['shop/web']), { rollout: failure })).toEqual({
    state: 'ended',
    reason: 'Another deployment replaced shop/web',
  })
})

test('only a view that contains the whole deployment has revisions', () => {
  const none = new Set<string>()
  expect(revisionsOf([target], [{ ...service, revision: 99 }], none)).toBeNull()
  expect(revisionsOf([target], [], none)).toBeNull()
  const [ours, theirs] = [100, 101].map((revision) => revisionsOf([target], [{ ...service, revision }], none))
  expect(ours).not.toBeNull()
  expect(theirs).not.toBe(ours)
  expect(revisionsOf([target], [], unchanged.seen), 'removed').not.toBe(ours)
})
