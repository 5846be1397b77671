/**
 * What users ask of a node, and what it answers: mirrors of `protocol/src/control.rs`, `control/rows.rs` and `http.rs`.
 * Field names are those of the JSON. Times are milliseconds since the epoch, sizes are bytes, CPU is in thousandths of a
 * core.
 */

/** A node: its peer id. */
export type NodeId = string
/** `project/service`. */
export type ServiceKey = string
/** Milliseconds; as a time, since the epoch. */
export type Millis = number
/** What a user may do; each may do what those before it may. */
export type UserRole = 'viewer' | 'deployer' | 'admin'
/** What a node is in the cluster. */
export type NodeRole = 'worker' | 'server'

/** Where an instance is in its life. */
export type InstanceState =
  | 'pending'
  | 'pulling'
  | 'starting'
  | 'running'
  | 'healthy'
  | 'unhealthy'
  | 'stopping'
  | 'failed'
  | 'completed'

/** How far the last update of a service is. */
export interface Rollout {
  state: 'complete' | 'updating' | 'paused' | 'rolled_back'
  /** Instances that are where it leads, and have proven themselves. */
  done: number
  /** Why it failed; empty when it did not. */
  reason: string
}

/** A service. */
export interface ServiceRow {
  service: ServiceKey
  project: string
  image: string
  /** How many are wanted. */
  replicas: number
  /** How many run. */
  running: number
  /** How many of those pass their healthcheck, or have none. */
  healthy: number
  /** What the sides of a partition do. */
  on_partition: string
  updated: Millis
  /** Ports that nodes publish, as `8080:80/tcp`. */
  ports: string[]
  rollout: Rollout
}

/** A slot and what fills it. */
export interface InstanceRow {
  service: ServiceKey
  /** Which replica, from 1. */
  replica: number
  /** On which node; `null`: none can take it. */
  node: NodeId | null
  node_name: string | null
  state: InstanceState
  /** Why, where there is something to say. */
  reason: string
  /** Where it is reached; empty: nowhere. */
  address: string
  restarts: number
  /** In this state since; 0 when it never was in one. */
  since: Millis
  /** Whether it runs what is wanted now, not an earlier version. */
  current: boolean
  /** Whether it has proven itself. */
  available: boolean
  /** Digest of what it runs; empty when nothing does. */
  digest: string
}

/** A node. */
export interface NodeRow {
  id: NodeId
  name: string
  state: 'up' | 'down' | 'left'
  /** What hinders it from running instances; empty: nothing. */
  problem: string
  draining: boolean
  cpu_millis: number
  memory_bytes: number
  cpu_reserved: number
  memory_reserved: number
  /** What is in use now; 0 when nothing is heard of it. */
  cpu_used: number
  memory_used: number
  instances: number
  runtime: string
  /** `os/arch`. */
  platform: string
  /** Where it is dialled: multiaddrs. */
  addresses: string[]
  labels: Record<string, string>
  version: string
  /** Members that it cannot hear. */
  unreachable: NodeId[]
}

/** The cluster at a glance. */
export interface StatusReport {
  cluster: string
  /** The node that answered. */
  node: NodeId
  nodes_up: number
  nodes: number
  services: number
  /** Instances wanted. */
  replicas: number
  /** Instances that run. */
  running: number
  cpu_millis: number
  cpu_reserved: number
  cpu_used: number
  memory_bytes: number
  memory_reserved: number
  memory_used: number
  /** What wants a person's eye, a line each. */
  problems: string[]
}

/** Something that happened, as the node that answers saw it. */
export interface EventRow {
  time: Millis
  level: 'info' | 'warning' | 'error'
  /** What it is about: `shop/web.2`, `shop/web`, or a node's name. */
  subject: string
  text: string
}

/** What a spec says. More fields come with it; they go back as they came. */
export interface ServiceSpec {
  container: {
    image: string
    command?: string[] | null
    environment?: Record<string, string>
    labels?: Record<string, string>
    reservation?: { cpu_millis: number; memory_bytes: number }
    limit?: { cpu_millis: number; memory_bytes: number }
    [more: string]: unknown
  }
  ports?: {
    host_ip: string | null
    published: number
    target: number
    protocol: 'tcp' | 'udp'
    publish?: 'cluster' | 'node'
  }[]
  [more: string]: unknown
}

/** A service as it is deployed. */
export interface Deployment {
  service: ServiceKey
  /** How many; `null`: as many as there are, or one. */
  replicas: number | null
  spec: ServiceSpec
}

/** A secret or config that services mount. */
export interface FileContent {
  project: string
  file: { kind: 'secret' | 'config'; name: string }
  base64: string
}

/** What a Compose file asks for: to be handed to a diff, a plan or a deployment as it is. */
export interface ComposeProject {
  project: string
  deployments: Deployment[]
  files: FileContent[]
  /** What a person should hear, a line each. */
  warnings: string[]
}

/** What a deployment changes about a service. */
export interface ServiceDiff {
  service: ServiceKey
  /** Whether it is new. */
  created: boolean
  /** `container.image: "web:1" -> "web:2"`, a line each. */
  changes: string[]
}

/** Everything about a service. */
export interface ServiceDetail {
  row: ServiceRow
  /** By whom it was deployed. */
  deployed_by: string
  spec: ServiceSpec
  /** What was wanted before: a rollback goes there. */
  previous: ServiceSpec | null
  instances: InstanceRow[]
}

/** A replica that has a node. */
export interface PlacementRow {
  service: ServiceKey
  replica: number
  node: NodeId
  node_name: string
  reasons: string[]
}

/** A replica that has none. */
export interface UnplacedRow {
  service: ServiceKey
  replica: number
  /** Why not, a line a node. */
  reasons: string[]
}

/** A replica that changes nodes, comes (`from` is `null`) or goes (`to` is `null`). */
export interface MoveRow {
  service: ServiceKey
  replica: number
  from: NodeId | null
  to: NodeId | null
  reason: string
}

/** Where each replica goes, and why. */
export interface PlanReport {
  /** SHA-256 over what the plan was computed from: equal on nodes that agree. */
  input_digest: string
  placements: PlacementRow[]
  unplaced: UnplacedRow[]
  moves: MoveRow[]
}

/** An image that members hold. */
export interface ImageRow {
  reference: string
  id: string
  size: number
  nodes: string[]
  services: ServiceKey[]
  /** When it was pushed; 0: it was not. */
  pushed: Millis
}

/** A named volume. */
export interface VolumeRow {
  /** `project/volume`. */
  volume: string
  node: NodeId
  node_name: string
  up: boolean
  services: ServiceKey[]
  since: Millis
}

/** A line that an instance wrote. */
export interface LogRow {
  service: ServiceKey
  replica: number
  node: NodeId
  time: Millis | null
  stream: 'stdout' | 'stderr'
  line: string
}

/** What changed since the turn before; the first has everything. Nothing at all: the node is there. */
export interface LiveUpdate {
  status?: StatusReport
  nodes?: NodeRow[]
  services?: ServiceRow[]
  instances?: InstanceRow[]
  /** What happened, oldest first; at first what happened lately. */
  events?: EventRow[]
}

/** Name and value, in their order. */
export type HeaderList = [name: string, value: string][]

/** The beginning of an instance's answer. */
export interface ResponseHead {
  status: number
  headers: HeaderList
  /** Which instance answered: `project/service.N@digest`. */
  instance: string
  /** On which node. */
  node: NodeId
}

/** Whom a token lets in. */
export type TokenSubject =
  | { node: { name: string; role: NodeRole } }
  | { user: { name: string; role: UserRole } }

/** An HTTP request to an instance; {@link Mesh.fetch} makes it. */
export interface FetchRequest {
  service: string
  /** Which of the ports that it publishes; `null`: its only one. */
  port: number | null
  method: string
  /** Path and query, from the slash on. */
  target: string
  headers: HeaderList
  /** Whether a body follows. */
  body: boolean
}

/** A WebSocket to an instance; {@link Mesh.socket} makes it. */
export interface SocketRequest {
  service: string
  port: number | null
  target: string
  headers: HeaderList
  protocols: string[]
}

/** A request of a user. `service` and `node` are as people write them: `web` or `shop/web`; a name or an id. */
export type Request =
  | { op: 'status' | 'nodes' | 'services' | 'images' | 'volumes' | 'live' | 'multiplex' }
  | { op: 'instances'; service: string | null }
  | { op: 'inspect' | 'restart' | 'rollback' | 'remove'; service: string }
  | { op: 'scale'; service: string; replicas: number }
  | { op: 'rebalance'; apply: boolean }
  | { op: 'plan'; deployments: Deployment[] }
  | { op: 'diff' | 'deploy'; deployments: Deployment[]; files: FileContent[] }
  | { op: 'compose'; text: string; project: string | null }
  | { op: 'drain'; node: string; drain: boolean }
  | { op: 'leave'; node: string; force: boolean }
  | { op: 'remove_volume'; volume: string }
  | { op: 'watch'; services: ServiceKey[] }
  | { op: 'events'; follow: boolean }
  | {
      op: 'logs'
      service: string
      replica: number | null
      follow: boolean
      tail: number | null
      since: Millis | null
    }
  | { op: 'create_token'; subject: TokenSubject; ttl_ms: Millis }
  | ({ op: 'fetch' } & FetchRequest)
  | ({ op: 'socket' } & SocketRequest)

/** An answer. */
export type Reply =
  | { reply: 'done'; value: string[] }
  | { reply: 'plan'; value: PlanReport }
  | { reply: 'services'; value: ServiceRow[] }
  | { reply: 'instances'; value: InstanceRow[] }
  | { reply: 'watched'; value: { services: ServiceRow[]; instances: InstanceRow[] } }
  | { reply: 'diff'; value: ServiceDiff[] }
  | { reply: 'service'; value: ServiceDetail }
  | { reply: 'moves'; value: MoveRow[] }
  | { reply: 'images'; value: ImageRow[] }
  | { reply: 'volumes'; value: VolumeRow[] }
  | { reply: 'nodes'; value: NodeRow[] }
  | { reply: 'status'; value: StatusReport }
  | { reply: 'token'; value: string }
  | { reply: 'log'; value: LogRow }
  | { reply: 'composed'; value: ComposeProject }
  | { reply: 'live'; value: LiveUpdate }
  | { reply: 'event'; value: EventRow }
  | { reply: 'response'; value: ResponseHead }
  | { reply: 'note'; value: string }
  | { reply: 'error'; value: ApiError }
  | { reply: 'ready' | 'keep_alive' | 'end' }

/** Why a node refused a request or failed at it. */
export interface ApiError {
  /** One of gRPC's canonical status codes in snake case, such as `not_found`. */
  code: string
  /** What failed and why, in one line. */
  message: string
  /** What to do about it; absent where there is nothing to do. */
  hint?: string
}

/** Returns the text of an error for people, in one line. */
export function describeError(error: ApiError): string {
  return error.hint ? `${error.message}: ${error.hint}` : error.message
}
