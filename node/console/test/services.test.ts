import { expect, test } from 'vitest'
import type { InstanceRow, ServiceRow, View } from 'vc-mesh'

import { findProblems } from '../src/model/problems'
import { byProject, parsePort, parseReplicas } from '../src/model/services'
import { instanceStatus, nodeStatus, serviceStatus } from '../src/model/status'
import { clusterView } from './fixtures'

const NOW = 1_800_000_000_000
const view = clusterView(NOW)

function row(of: View, service: string): ServiceRow {
  const found = of.services.find((it) => it.service === service)
  if (!found) throw new Error(`no ${service} in the fixture`)
  return found
}

const word = (service: string, instances: InstanceRow[] = view.instances, more: Partial<ServiceRow> = {}) =>
  serviceStatus({ ...row(view, service), ...more }, instances).label

test('services are grouped by project and sorted by name', () => {
  const groups = byProject(view.services).map(({ name, services }) => [name, services.map((it) => it.service)])
  expect(groups).toEqual([
    ['lab', ['lab/dns', 'lab/metrics']],
    ['shop', ['shop/api', 'shop/database', 'shop/mail', 'shop/web']],
  ])
  expect(byProject([])).toEqual([])
})

test('the status of a service follows from its instances and its update', () => {
  expect(word('shop/api')).toBe('healthy')
  expect(word('shop/web')).toBe('updating')
  expect(word('lab/dns')).toBe('rolled back')
  expect(word('shop/mail')).toBe('degraded')
  expect(word('shop/mail', view.instances.filter((it) => it.state === 'failed'), { running: 0 })).toBe('failing')
  expect(word('shop/api', [], { running: 0, healthy: 0 })).toBe('starting')
  expect(word('shop/api', [], { replicas: 0 })).toBe('scaled to 0')
  expect(word('shop/api', view.instances, { rollout: { state: 'paused', done: 1, reason: 'x' } })).toBe('update paused')
})

test('running instances count as ready without a healthcheck, but not while one is pending', () => {
  expect(word('lab/metrics')).toBe('healthy')
  expect(word('lab/metrics', view.instances, { healthy: 0 })).toBe('starting')
})

test('instances and nodes have a status label', () => {
  const [first] = view.instances as [InstanceRow]
  expect(instanceStatus({ ...first, state: 'pending', node: null, reason: 'no room' }, NOW)).toEqual({ tone: 'warn', label: 'unplaced' })
  expect(instanceStatus({ ...first, current: false, state: 'stopping' }, NOW).label).toBe('stopping (old)')
  const running = { ...first, state: 'running', available: false, monitor_ms: 5000, since: NOW - 2000 } as const
  expect(instanceStatus(running, NOW).label).toBe('running (monitoring 3s)')
  expect(instanceStatus(running, NOW + 3000).label).toBe('running (monitoring)')
  expect(instanceStatus(running, NOW - 60_000).label, 'the clock of its node is ahead').toBe('running (monitoring 5s)')
  expect(instanceStatus({ ...running, monitor_ms: 0 }, NOW).label).toBe('running (not healthy yet)')
  const [alpha, beta] = view.nodes
  if (!alpha || !beta) throw new Error('no nodes in the fixture')
  expect(nodeStatus(alpha, view.nodes).label).toBe('up')
  expect(nodeStatus(beta, view.nodes).label).toBe('up, link lost')
  const dead = view.nodes.map((it) => (beta.unreachable.includes(it.id) ? { ...it, state: 'down' as const } : it))
  expect(nodeStatus(beta, dead).label, 'a node that is down is one problem').toBe('up')
  expect(nodeStatus({ ...alpha, restarting: true }, view.nodes).label).toBe('restarting')
  expect(nodeStatus({ ...alpha, draining: true }, view.nodes).label).toBe('draining')
  expect(nodeStatus({ ...alpha, draining: true, instances: 0 }, view.nodes).label).toBe('drained')
  expect(nodeStatus({ ...alpha, state: 'down', draining: true }, view.nodes).label).toBe('down')
})

test('ports are parsed as vc prints them', () => {
  expect(parsePort('8080:80/tcp')).toEqual({ published: 8080, target: 80, protocol: 'tcp' })
  expect(parsePort('127.0.0.1:8080:80/tcp')).toEqual({ published: 8080, target: 80, protocol: 'tcp' })
  expect(parsePort('[::1]:5353:53/udp')).toEqual({ published: 5353, target: 53, protocol: 'udp' })
  expect(parsePort('80')).toBeNull()
})

test('problems are the reported ones and unreachable links', () => {
  expect(findProblems(view.status, view.services, view.nodes)).toEqual([
    { text: expect.stringContaining('shop/mail.2 is failed'), href: '#/services/shop/mail' },
    { text: 'beta and gamma cannot reach each other', href: null },
  ])
  expect(findProblems(null, [], [])).toEqual([])
})

test('replica counts are integers within the limit', () => {
  expect(['0', '12', ' 4 ', '007', '1000'].map(parseReplicas)).toEqual([0, 12, 4, 7, 1000])
  for (const other of ['', '-3', '3.5', '3x', '1e2', '0x10', '1001', '99999', '9'.repeat(400), '٣']) {
    expect(parseReplicas(other), other).toBeNull()
  }
})
