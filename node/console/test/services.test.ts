import { expect, test } from 'vitest'
import type { InstanceRow, ServiceRow, View } from 'vc-mesh'

import { concerns } from '../src/concerns'
import { byProject, instanceCondition, nodeCondition, readPort, readReplicas, serviceCondition } from '../src/services'
import { scene } from './scene'

const view = scene(1_800_000_000_000)

function row(of: View, service: string): ServiceRow {
  const found = of.services.find((it) => it.service === service)
  if (!found) throw new Error(`no ${service} in the scene`)
  return found
}

const word = (service: string, instances: InstanceRow[] = view.instances, more: Partial<ServiceRow> = {}) =>
  serviceCondition({ ...row(view, service), ...more }, instances).word

test('services are grouped by their project, both in the order of names', () => {
  const groups = byProject(view.services).map(({ name, services }) => [name, services.map((it) => it.service)])
  expect(groups).toEqual([
    ['lab', ['lab/dns', 'lab/metrics']],
    ['shop', ['shop/api', 'shop/database', 'shop/mail', 'shop/web']],
  ])
  expect(byProject([])).toEqual([])
})

test('a service is in a word what its instances and its update are', () => {
  expect(word('shop/api')).toBe('healthy')
  expect(word('shop/web')).toBe('updating')
  expect(word('lab/dns')).toBe('rolled back')
  expect(word('shop/mail')).toBe('degraded')
  expect(word('shop/mail', view.instances.filter((it) => it.state === 'failed'), { running: 0 })).toBe('failing')
  expect(word('shop/api', [], { running: 0, healthy: 0 })).toBe('starting')
  expect(word('shop/api', [], { replicas: 0 })).toBe('scaled to 0')
  expect(word('shop/api', view.instances, { rollout: { state: 'paused', done: 1, reason: 'x' } })).toBe('update paused')
})

test('an instance that runs without a healthcheck is good; one that waits for its check is not', () => {
  expect(word('lab/metrics')).toBe('healthy')
  expect(word('lab/metrics', view.instances, { healthy: 0 })).toBe('starting')
})

test('instances and nodes say their state in a word, and why they have no place', () => {
  const [first] = view.instances as [InstanceRow]
  expect(instanceCondition({ ...first, state: 'pending', node: null, reason: 'no room' })).toEqual({ tone: 'warn', word: 'no place' })
  expect(instanceCondition({ ...first, current: false, state: 'stopping' }).word).toBe('stopping, old')
  const [alpha, beta] = view.nodes
  if (!alpha || !beta) throw new Error('no nodes in the scene')
  expect(nodeCondition(alpha).word).toBe('up')
  expect(nodeCondition(beta).word).toBe('up, link lost')
  expect(nodeCondition({ ...alpha, draining: true }).word).toBe('draining')
  expect(nodeCondition({ ...alpha, draining: true, instances: 0 }).word).toBe('drained')
  expect(nodeCondition({ ...alpha, state: 'down', draining: true }).word).toBe('down')
})

test('ports are read as vc writes them', () => {
  expect(readPort('8080:80/tcp')).toEqual({ published: 8080, target: 80, protocol: 'tcp' })
  expect(readPort('127.0.0.1:8080:80/tcp')).toEqual({ published: 8080, target: 80, protocol: 'tcp' })
  expect(readPort('[::1]:5353:53/udp')).toEqual({ published: 5353, target: 53, protocol: 'udp' })
  expect(readPort('80')).toBeNull()
})

test('what wants a look: problems, links that are cut, updates that failed', () => {
  expect(concerns(view.status, view.services, view.nodes)).toEqual([
    { text: expect.stringContaining('shop/mail.2 is failed'), href: '#/services/shop/mail' },
    { text: 'beta and gamma cannot hear each other', href: null },
    { text: expect.stringContaining('the update of lab/dns was rolled back'), href: '#/services/lab/dns' },
  ])
  expect(concerns(null, [], [])).toEqual([])
})

test('only a number that a node takes is taken for a number of replicas', () => {
  expect(['0', '12', ' 4 ', '007', '1000'].map(readReplicas)).toEqual([0, 12, 4, 7, 1000])
  for (const other of ['', '-3', '3.5', '3x', '1e2', '0x10', '1001', '99999', '9'.repeat(400), '٣']) {
    expect(readReplicas(other), other).toBeNull()
  }
})
