// Fixtures: a cluster of three nodes with two projects, an update in progress, a failed instance and an unreachable link.

import type { EventRow, ImageRow, InstanceRow, NodeRow, PlanReport, ReplicaRow, ServiceRow, ServiceSpec, SnapshotRow, StatusReport, UsageRow, View, VolumeRow } from 'vc-mesh'

const GIB = 1024 ** 3
const MINUTE = 60_000

export const ID = {
  alpha: '12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5',
  beta: '12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6Lr2NASuq',
  gamma: '12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez99r3ANaba',
} as const

type NodeName = keyof typeof ID

function node(name: NodeName, more: Partial<NodeRow>): NodeRow {
  return {
    id: ID[name],
    name,
    state: 'up',
    role: 'server',
    votes: true,
    problem: '',
    draining: false,
    cpu_millis: 4000,
    memory_bytes: 8 * GIB,
    cpu_reserved: 1750,
    memory_reserved: 3.5 * GIB,
    cpu_used: 640,
    memory_used: 2.2 * GIB,
    disk_bytes: 40 * GIB,
    disk_used: 12 * GIB,
    instances: 4,
    runtime: 'docker',
    platform: 'linux/amd64',
    addresses: [
      `/ip4/192.168.1.11/udp/4777/quic-v1/p2p/${ID[name]}`,
      `/ip4/192.168.1.11/udp/4778/webrtc-direct/certhash/uEiAkH5a4DPGKUuOBjYw0CgwjLa2R_RF71v86aVxlqdKNOQ/p2p/${ID[name]}`,
    ],
    labels: {},
    version: '0.1.0',
    unreachable: [],
    clock_offset_ms: 0,
    left: 0,
    backups: null,
    ...more,
  }
}

function service(key: string, more: Partial<ServiceRow>, now: number): ServiceRow {
  return {
    service: key,
    project: key.split('/')[0] ?? '',
    image: `registry.example/${key}:1.4.2`,
    replicas: 3,
    running: 3,
    healthy: 3,
    on_partition: 'available',
    on_partition_effect: 'available: each side of a partition runs it',
    updated: now - 190 * MINUTE,
    revision: 1,
    ports: [],
    rollout: { state: 'complete', done: more.replicas ?? 3, reason: '' },
    ...more,
  }
}

function instance(key: string, replica: number, on: NodeName | null, more: Partial<InstanceRow>, now: number): InstanceRow {
  return {
    service: key,
    replica,
    node: on && ID[on],
    node_name: on,
    state: 'healthy',
    reason: '',
    address: '172.19.0.4:8080',
    restarts: 0,
    since: now - 182 * MINUTE,
    current: true,
    available: true,
    monitor_ms: 0,
    digest: 'a3c5e1f09b7d2468',
    terminal: false,
    ...more,
  }
}

/** Returns the view of the fixture cluster at `now`, milliseconds since the epoch. */
export function clusterView(now: number): View {
  const nodes = [
    node('alpha', { labels: { disk: 'ssd', room: 'attic' }, cpu_used: 1310, instances: 5 }),
    node('beta', { unreachable: [ID.gamma], memory_used: 5.1 * GIB, memory_reserved: 6 * GIB }),
    node('gamma', { platform: 'linux/arm64', unreachable: [ID.beta], cpu_used: 240, cpu_reserved: 500, instances: 2 }),
  ]
  const services = [
    service('shop/web', {
      image: 'registry.example/shop/web:1.5.0',
      ports: ['8080:80/tcp'],
      updated: now - MINUTE,
      revision: 2,
      rollout: { state: 'updating', done: 1, reason: '' },
    }, now),
    service('shop/api', { ports: ['9000:9000/tcp', '9001:9001/tcp'] }, now),
    service('shop/database', { replicas: 1, running: 1, healthy: 1, image: 'postgres:17-alpine' }, now),
    service('shop/mail', { replicas: 2, running: 1, healthy: 1 }, now),
    service('lab/metrics', { replicas: 1, running: 1, healthy: 1, image: 'prom/prometheus:v3.1.0', ports: ['9090:9090/tcp'] }, now),
    service('lab/dns', {
      replicas: 1,
      running: 1,
      healthy: 1,
      ports: ['5353:53/udp'],
      rollout: { state: 'rolled_back', done: 1, reason: 'lab/dns.1 on beta: exited with code 1: cannot open the configuration' },
    }, now),
  ]
  const instances = [
    instance('shop/web', 1, 'alpha', { since: now - 40_000 }, now),
    instance('shop/web', 2, 'beta', { state: 'running', available: false, monitor_ms: 7000, since: now - 4000 }, now),
    instance('shop/web', 2, 'beta', { state: 'stopping', current: false, since: now - 2000, digest: 'old' }, now),
    instance('shop/web', 3, 'gamma', { digest: 'old' }, now),
    ...([1, 2, 3] as const).map((it) => instance('shop/api', it, it === 1 ? 'alpha' : it === 2 ? 'beta' : 'gamma', {}, now)),
    instance('shop/database', 1, 'alpha', {}, now),
    instance('shop/mail', 1, 'alpha', {}, now),
    instance('shop/mail', 2, 'beta', {
      state: 'failed',
      available: false,
      restarts: 4,
      address: '',
      since: now - 9000,
      reason: 'exited with code 1: reading configuration: no such file: mail.conf; retried in 8s',
    }, now),
    instance('lab/metrics', 1, 'alpha', { state: 'running' }, now),
    instance('lab/dns', 1, 'beta', { state: 'running', since: now - 30 * MINUTE }, now),
  ]
  return { status: statusOf(nodes, services, instances), nodes, services, instances, events: events(now) }
}

/** Computes the status report of a view. */
export function statusOf(nodes: NodeRow[], services: ServiceRow[], instances: InstanceRow[]): StatusReport {
  const up = nodes.filter((row) => row.state === 'up')
  const sum = (of: (row: NodeRow) => number) => up.reduce((all, row) => all + of(row), 0)
  const down = nodes.filter((row) => row.state === 'down').map((row) => `node ${row.name} is down`)
  const failed = instances.filter((row) => row.state === 'failed')
  return {
    cluster: '12D3KooWSrKnMZUcSxK8G7wmBbXdU8nFEfWGhLu6H8xjn8LmCSJb',
    node: ID.alpha,
    nodes_up: up.length,
    nodes: nodes.length,
    voters: nodes.filter((row) => row.votes).length,
    voters_up: up.filter((row) => row.votes).length,
    services: services.length,
    replicas: services.reduce((all, row) => all + row.replicas, 0),
    running: services.reduce((all, row) => all + row.running, 0),
    cpu_millis: sum((row) => row.cpu_millis),
    cpu_reserved: sum((row) => row.cpu_reserved),
    cpu_used: sum((row) => row.cpu_used),
    memory_bytes: sum((row) => row.memory_bytes),
    memory_reserved: sum((row) => row.memory_reserved),
    memory_used: sum((row) => row.memory_used),
    problems: [...down, ...failed.map((row) => `${row.service}.${row.replica} is ${row.state}: ${row.reason}`)],
  }
}

function events(now: number): EventRow[] {
  const samples: [EventRow['level'], string, string][] = [
    ['info', 'shop/api.2', 'healthy on beta'],
    ['warning', 'gamma', 'cannot reach beta'],
    ['error', 'shop/mail.2', 'failed on beta: exited with code 1: reading configuration: no such file: mail.conf'],
    ['info', 'shop/web', 'deployed by anna: container.image'],
    ['info', 'shop/web.1', 'healthy on alpha'],
  ]
  return Array.from({ length: 40 }, (_, index) => {
    const [level, subject, text] = samples[index % samples.length] as (typeof samples)[number]
    return { time: now - (40 - index) * 47_000, level, subject, text }
  })
}

/** Returns volumes: one in order, one whose first copy is on its way, and one with a conflict and a copy that fails. */
export function volumes(now: number): VolumeRow[] {
  const volume = (name: string, on: NodeName, more: Partial<VolumeRow>): VolumeRow => ({
    volume: name,
    project: name.split('/')[0] ?? '',
    node: ID[on],
    node_name: on,
    primary: on,
    up: true,
    services: [],
    since: now - 190 * MINUTE,
    replicas: [],
    wanted: 2,
    snapshot: '1000003-12',
    taken: now - 4000,
    epoch: 1_000_003,
    bytes: 2 * GIB,
    conflicts: 0,
    problem: '',
    ...more,
  })
  const replica = (on: NodeName, more: Partial<ReplicaRow>): ReplicaRow => ({
    node: ID[on],
    node_name: on,
    snapshot: '1000003-11',
    lag_ms: 6000,
    bytes: 2 * GIB,
    received: 0,
    state: 'behind',
    problem: '',
    ...more,
  })
  const nothing = { snapshot: null, lag_ms: null, bytes: 0 }
  return [
    volume('shop/data', 'alpha', { services: ['shop/database'], replicas: [replica('beta', {})] }),
    volume('shop/files', 'beta', {
      services: ['shop/api', 'shop/web'],
      replicas: [replica('alpha', { ...nothing, state: 'copying', received: 0.9 * GIB })],
    }),
    volume('lab/series', 'alpha', {
      services: ['lab/metrics'],
      conflicts: 1,
      replicas: [replica('gamma', { state: 'failed', lag_ms: 300_000, problem: 'no space left on /var/lib/vc' })],
    }),
  ]
}

export const plan: PlanReport = {
  input_digest: '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08',
  placements: [
    { service: 'shop/web', replica: 1, node: ID.alpha, node_name: 'alpha', reasons: ['runs there already'] },
    { service: 'shop/web', replica: 2, node: ID.beta, node_name: 'beta', reasons: ['runs there already'] },
    { service: 'shop/web', replica: 3, node: ID.gamma, node_name: 'gamma', reasons: ['runs there already'] },
    {
      service: 'shop/queue',
      replica: 1,
      node: ID.gamma,
      node_name: 'gamma',
      reasons: ['fewest replicas of shop/queue (0)', 'best fit: 61% of its memory left free', '2 of 3 nodes feasible'],
    },
  ],
  unplaced: [
    {
      service: 'shop/queue',
      replica: 2,
      reasons: ['alpha: 2 GiB of memory free, 4 GiB needed', 'beta: 1.5 GiB of memory free, 4 GiB needed', 'gamma: holds shop/queue.1 already'],
    },
  ],
  moves: [{ service: 'shop/queue', replica: 1, from: null, to: ID.gamma, reason: 'new' }],
}

export const spec: ServiceSpec = {
  container: {
    image: 'registry.example/shop/web:1.5.0',
    environment: { DATABASE_URL: 'postgres://database/shop', WORKERS: '4' },
    healthcheck: { test: ['CMD', 'curl', '-f', 'http://localhost/health'], interval_ms: 5000 },
    reservation: { cpu_millis: 250, memory_bytes: 512 * 1024 ** 2 },
    stop_grace_ms: 10_000,
  },
  constraints: [{ attribute: { label: 'disk' }, equal: true, value: 'ssd' }],
  ports: [{ host_ip: null, published: 8080, target: 80, protocol: 'tcp', publish: 'cluster' }],
  update: { parallelism: 1, delay_ms: 0, monitor_ms: 5000, failure_action: 'rollback' },
}

export const previousSpec: ServiceSpec = {
  ...spec,
  container: { ...spec.container, image: 'registry.example/shop/web:1.4.2', environment: { DATABASE_URL: 'postgres://database/shop', WORKERS: '2' } },
}

/** Returns two images, of which one is on every node. */
export function images(now: number): ImageRow[] {
  const all = Object.values(ID)
  return [
    { reference: 'registry.example/shop/web:1.5.0', id: 'sha256:1f', size: 181_000_000, nodes: all, services: ['shop/web'], pushed: now - 9 * MINUTE },
    { reference: 'registry.example/shop/api:1.4.2', id: 'sha256:2e', size: 94_000_000, nodes: [ID.beta], services: [], pushed: 0 },
  ]
}

/** Returns what the running instances of a service, or on a node, use: another amount at each time. */
export function usage(instances: readonly InstanceRow[], service: string | null, node: string | null, now: number): UsageRow[] {
  const running = instances.filter((it) => it.current && ['running', 'healthy'].includes(it.state))
  const chosen = running.filter((it) => (service === null || it.service === service) && (node === null || it.node === node))
  return chosen.map((it, i) => ({
    service: it.service,
    replica: it.replica,
    node: it.node ?? '',
    node_name: it.node_name ?? '',
    digest: it.digest,
    container: '',
    cpu_millis: Math.round(240 + 180 * Math.sin(now / 9000 + i)),
    cpu_limit_millis: 1000,
    cpu_ms: now,
    memory_bytes: Math.round((96 + 20 * Math.sin(now / 15_000 + 2 * i)) * 1024 ** 2),
    memory_total_bytes: 160 * 1024 ** 2,
    memory_limit_bytes: 256 * 1024 ** 2,
    network_received_bytes: 0,
    network_sent_bytes: 0,
    disk_read_bytes: null,
    disk_written_bytes: null,
    processes: 3,
    started: it.since,
    measured: now,
  }))
}

/** Returns two snapshots of a volume, and a conflict. */
export function snapshots(volume: string, node: string, now: number): SnapshotRow[] {
  const common = { volume, node, node_name: 'alpha', files: 12, bytes: 2 * GIB, expires: 0 }
  return [
    { ...common, kind: 'snapshot', snapshot: '3-41', time: now - 8 * MINUTE },
    { ...common, kind: 'snapshot', snapshot: '3-42', time: now - MINUTE },
    { ...common, kind: 'conflict', snapshot: '2-7', time: now - 60 * MINUTE, expires: now + 6 * 1440 * MINUTE },
  ]
}
