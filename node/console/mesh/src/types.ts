/**
 * Mirrors the control protocol: `protocol/src/control.rs`, `control/rows.rs`, `control/changes.rs`, `error.rs` and `http.rs`.
 * Field names are those of the JSON. Times are milliseconds since the Unix epoch, sizes are bytes, CPU is in thousandths of a
 * core. Requests that browsers do not send (images, exec, copy) are left out.
 */

/** A node: its peer id. */
export type NodeId = string
/** `project/service`. */
export type ServiceKey = string
/** Milliseconds; as a time, since the epoch. */
export type Millis = number
/** The role of a user. Each role includes those before it. */
export type UserRole = 'viewer' | 'deployer' | 'admin'
/** The role of a node. */
export type NodeRole = 'worker' | 'server'

/** The state of an instance. */
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

/** The progress of the last update of a service. */
export interface Rollout {
  state: 'complete' | 'updating' | 'paused' | 'rolled_back'
  /** Number of slots that run the target version and are available. */
  done: number
  /** Why it failed; empty if it did not. */
  reason: string
  /** Number of the version that the update leads or led to; missing or 0 when it is complete. */
  version?: number
  /** Image reference of that version. */
  image?: string
}

/** A service. */
export interface ServiceRow {
  service: ServiceKey
  project: string
  /** Image reference of the version in effect. */
  image: string
  /** Number of the version in effect; missing from older nodes. */
  version?: number
  /** `replicated`, `global`, `replicated-job` or `global-job`; missing from older nodes. */
  mode?: string
  /** Desired number of replicas; where there is one for each node, the nodes that it suits. */
  replicas: number
  /** Of a job, the number of runs of this deployment that have exited with code 0; missing from older nodes. */
  succeeded?: number
  /** Of a job, the number of runs of this deployment that have ended otherwise; missing from older nodes. */
  failed?: number
  /** Number of running replicas, of whatever version. */
  running: number
  /** Number of running replicas whose healthcheck passes, or that have none. */
  healthy: number
  /** Whether the version in effect has a healthcheck; missing from older nodes. */
  has_healthcheck?: boolean
  /** Behaviour during a network partition. */
  on_partition: string
  /** What that means, in words; missing from older nodes. */
  on_partition_effect?: string
  updated: Millis
  /** Number of the last deployment; a later one has a higher number. */
  revision: number
  /** Published ports, as `8080:80/tcp`. */
  ports: string[]
  /** Those of them that only the nodes with its instances publish, and the names of these nodes. */
  host_ports?: { port: string; nodes: string[] }[]
  /** Ports that no node can publish now, with the reason. */
  unpublished?: string[]
  rollout: Rollout
}

/** A slot with the instance that fills it. */
export interface InstanceRow {
  service: ServiceKey
  /** Number of the replica, from 1. */
  replica: number
  /** The node; `null` if no node can take the slot. */
  node: NodeId | null
  node_name: string | null
  state: InstanceState
  /** Reason of the state; may be empty. */
  reason: string
  /** Address of the instance; empty if it has none. */
  address: string
  restarts: number
  /** Time at which it entered the state; 0 if there is no instance. */
  since: Millis
  /** Whether it runs the spec in effect, not an earlier version. */
  current: boolean
  /** Whether it is available: healthy, or running for the `monitor` time of the update policy. */
  available: boolean
  /** Time that it must run, from `since` on, to be available, in milliseconds; 0 unless it is running and monitored. */
  monitor_ms: number
  /** Digest of the container spec; empty if there is no instance. */
  digest: string
  /** Whether it has failed and will not run without a change from outside. */
  terminal: boolean
  /** Whether it is a run that has ended: it is not started again; missing from older nodes. */
  ended?: boolean
  /** CPU in use, thousandths of a core; `null` unless the request asked for it and its node answered in time. */
  cpu_millis?: number | null
  /** Memory in use without what the kernel can drop, bytes; `null` likewise. */
  memory_bytes?: number | null
}

/** What a running instance uses, as its node measured it last. Counters are since its start. */
export interface UsageRow {
  service: ServiceKey
  /** Number of the replica, from 1. */
  replica: number
  node: NodeId
  node_name: string
  /** Digest of the container spec. */
  digest: string
  /** Name of the container; empty of a process. */
  container: string
  /** CPU in use between the last two measurements, thousandths of a core; `null` before the second. */
  cpu_millis: number | null
  /** The most CPU that it may use, thousandths of a core; 0 without a limit. */
  cpu_limit_millis: number
  /** CPU time, milliseconds. */
  cpu_ms: number
  /** Memory in use without what the kernel can drop, bytes. */
  memory_bytes: number
  /** Memory in use with caches of files, bytes. */
  memory_total_bytes: number
  /** The most memory that it may have, bytes; 0 without a limit. */
  memory_limit_bytes: number
  /** `null` if it has no network of its own. */
  network_received_bytes: number | null
  network_sent_bytes: number | null
  /** `null` if the host does not count them. */
  disk_read_bytes: number | null
  disk_written_bytes: number | null
  /** Number of its processes and threads. */
  processes: number
  /** When it was started, by the clock of its host. */
  started: Millis
  /** When this was measured, by the clock of its node. */
  measured: Millis
}

/** A node. */
export interface NodeRow {
  id: NodeId
  name: string
  state: 'up' | 'down' | 'left'
  /** Empty if it left. */
  role: 'server' | 'worker' | 'witness' | ''
  /** Is one of the voters, which grant leases. Missing from older nodes. */
  votes?: boolean
  /** Why it cannot run instances; empty if it can. */
  problem: string
  draining: boolean
  /** Has announced a restart and is not back yet; `state` is `up` meanwhile. */
  restarting?: boolean
  /** When the answering node saw that it is down; 0 while it is up, missing from older nodes. */
  down_since?: Millis
  cpu_millis: number
  memory_bytes: number
  cpu_reserved: number
  memory_reserved: number
  /** Of resources that are counted, by kind; both are missing from older nodes. */
  generic_resources?: Record<string, number>
  generic_reserved?: Record<string, number>
  /** In use; 0 without a recent heartbeat. */
  cpu_used: number
  memory_used: number
  disk_bytes: number
  disk_used: number
  instances: number
  runtime: string
  /** `os/arch`. */
  platform: string
  /** Multiaddrs to dial. */
  addresses: string[]
  labels: Record<string, string>
  version: string
  /** Members that it cannot reach. */
  unreachable: NodeId[]
  /** How far its clock is ahead of that of the node that answers; negative if it is behind, 0 below 2 s. */
  clock_offset_ms: Millis
  left: Millis
  /** The backups that it makes of the cluster by its settings; null if it makes none. */
  backups: { every: Millis; taken: Millis; size: number; problem?: string } | null
}

/** What a running instance uses, as its node measured it last. Counters are since its start. */
export interface UsageRow {
  service: ServiceKey
  replica: number
  node: NodeId
  node_name: string
  digest: string
  /** Empty for a process. */
  container: string
  /** Between the last two measurements; null before the second. */
  cpu_millis: number | null
  /** 0 without a limit. */
  cpu_limit_millis: number
  cpu_ms: Millis
  /** Without what the kernel can drop. */
  memory_bytes: number
  memory_total_bytes: number
  /** 0 without a limit. */
  memory_limit_bytes: number
  /** Null if it has no network of its own. */
  network_received_bytes: number | null
  network_sent_bytes: number | null
  /** Null if the host does not count them. */
  disk_read_bytes: number | null
  disk_written_bytes: number | null
  processes: number
  started: Millis
  measured: Millis
}

/** A summary of the cluster. */
export interface StatusReport {
  cluster: string
  /** The node that answered. */
  node: NodeId
  nodes_up: number
  nodes: number
  /** Voters, which grant leases of exclusive services; 0 before the first are chosen. Missing from older nodes. */
  voters?: number
  voters_up?: number
  services: number
  /** Desired number of instances. */
  replicas: number
  /** Number of running instances. */
  running: number
  cpu_millis: number
  cpu_reserved: number
  cpu_used: number
  memory_bytes: number
  memory_reserved: number
  memory_used: number
  /** Problems that need attention, one line each. */
  problems: string[]
  /** What identifies each of these, in the same order. Missing from older nodes. */
  problem_ids?: { kind: string; id: string }[]
  hints?: string[]
}

/** The program of a node. */
export interface ProgramRow {
  node: NodeId
  node_name: string
  version: string
  /** SHA-256 of the file. */
  digest: string
  path: string
  /** The Debian package that the path belongs to; empty without one. */
  package: string
  /** The program before it. */
  previous: { digest: string; size: number } | null
  /** Why the node takes no other program; empty if it does. */
  refuses: string
  /** The upgrade that the node went back from when it started. */
  failed: { version: string; digest: string; reason: string } | null
}

/** An event, as the answering node saw it. */
export interface EventRow {
  time: Millis
  level: 'info' | 'warning' | 'error'
  /** The subject: `shop/web.2`, `shop/web`, or a node's name. */
  subject: string
  text: string
}

/** The spec of a service. Fields that are not listed are passed back unchanged. */
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
    proxy_protocol?: 'v1' | 'v2' | null
  }[]
  [more: string]: unknown
}

/** A service to deploy. */
export interface Deployment {
  service: ServiceKey
  /** Number of replicas; `null` for the present number, or 1 for a new service. */
  replicas: number | null
  spec: ServiceSpec
}

/** The content of a secret or config. */
export interface FileContent {
  project: string
  file: { kind: 'secret' | 'config'; name: string }
  base64: string
}

/** A parsed Compose file, to be passed to diff, plan or deploy unchanged. */
export interface ComposeProject {
  project: string
  deployments: Deployment[]
  files: FileContent[]
  /** Warnings, one line each. */
  warnings: string[]
}

/** The changes that a deployment makes to a service. */
export interface ServiceDiff {
  service: ServiceKey
  /** Whether the service is new. */
  created: boolean
  /** One line per change: `container.image: "web:1" -> "web:2"`. */
  changes: string[]
}

/** The details of a service. */
export interface ServiceDetail {
  row: ServiceRow
  /** Name of the user that deployed it. */
  deployed_by: string
  spec: ServiceSpec
  /** The spec that a rollback returns to. */
  previous: ServiceSpec | null
  instances: InstanceRow[]
}

/** A version of a service. */
export interface VersionRow {
  service: ServiceKey
  /** Its number, from 1; a later version has a higher one. */
  version: number
  state: 'current' | 'updating' | 'failed' | 'rolled_back' | 'superseded'
  /** Why its update failed, or was not completed; empty otherwise. */
  reason: string
  /** Its last deployment; 0 if it is not known. */
  deployed: Millis
  deployed_by: string
  image: string
  image_id: string | null
  /** One line for each difference to the version listed before it. */
  changes: string[]
  /** The newest version before it with the same spec. */
  same_as: number | null
  /** Secrets and configs whose content is no longer kept: it cannot be returned to. */
  missing_files: string[]
  /** Whether a rollback that names no version returns to it. */
  rollback_target: boolean
}

/** A placed slot. */
export interface PlacementRow {
  service: ServiceKey
  replica: number
  node: NodeId
  node_name: string
  reasons: string[]
}

/** A slot that no node can take. */
export interface UnplacedRow {
  service: ServiceKey
  replica: number
  /** Why not, one line per node. */
  reasons: string[]
}

/** A slot that changes its node, starts (`from` is `null`) or stops (`to` is `null`). */
export interface MoveRow {
  service: ServiceKey
  replica: number
  from: NodeId | null
  to: NodeId | null
  reason: string
}

/** The plan, with reasons. */
export interface PlanReport {
  /** Digest of the input of the plan: equal on nodes that agree. */
  input_digest: string
  placements: PlacementRow[]
  unplaced: UnplacedRow[]
  moves: MoveRow[]
}

/** An image in the cluster. */
export interface ImageRow {
  reference: string
  id: string
  size: number
  nodes: string[]
  services: ServiceKey[]
  /** Time of the push; 0 if it was not pushed. */
  pushed: Millis
}

/** A named volume. */
export interface VolumeRow {
  /** `project/volume`. */
  volume: string
  project: string
  node: NodeId
  node_name: string
  primary: string
  up: boolean
  services: ServiceKey[]
  since: Millis
  replicas: ReplicaRow[]
  wanted: number
  /** `EPOCH-NUMBER`. */
  snapshot: string | null
  taken: Millis
  epoch: number
  bytes: number
  conflicts: number
  problem: string
}

/** A copy of a volume on a node that does not write it. */
export interface ReplicaRow {
  node: NodeId
  node_name: string
  /** `EPOCH-NUMBER`. */
  snapshot: string | null
  /** Null if it has no snapshot yet. */
  lag_ms: Millis | null
  bytes: number
  /** While it gets its first snapshot: how many bytes have arrived of those of the volume; else 0. */
  received: number
  state: 'current' | 'behind' | 'copying' | 'failed' | 'down'
  problem: string
}

/** A content of a volume that a node keeps. */
export interface SnapshotRow {
  volume: string
  kind: 'snapshot' | 'conflict' | 'removed'
  /** `EPOCH-NUMBER`. */
  snapshot: string
  node: NodeId
  node_name: string
  time: Millis
  files: number
  bytes: number
  /** 0 for a snapshot. */
  expires: Millis
}

/** A log line of an instance. */
export interface LogRow {
  service: ServiceKey
  replica: number
  node: NodeId
  time: Millis | null
  stream: 'stdout' | 'stderr'
  line: string
  /** Lines before this one that were lost because they were read too slowly; `lines` is 0 where their number is unknown. */
  lost?: { lines: number; bytes: number }
}

/** The sections that changed since the last update; the first update has all. An empty update is a keepalive. */
export interface LiveUpdate {
  status?: StatusReport
  nodes?: NodeRow[]
  services?: ServiceRow[]
  instances?: InstanceRow[]
  /** New events, oldest first; the first update has the recent ones. */
  events?: EventRow[]
}

/** Names and values, in order. */
export type HeaderList = [name: string, value: string][]

/** Status and headers of an instance's response. */
export interface ResponseHead {
  status: number
  headers: HeaderList
  /** The instance that answered: `project/service.N@digest`. */
  instance: string
  /** The node that runs it. */
  node: NodeId
}

/** A project. */
export interface ProjectRow {
  project: string
  /** Number of its services. */
  services: number
  /** What deployers may let its services use of their hosts. */
  allowed: string[]
}

/** What of the disk of a node something takes. */
export interface DiskUsageRow {
  node: NodeId
  node_name: string
  kind: string
  bytes: number
  /** How many of these can be freed without a loss of data. */
  reclaimable: number
  /** What frees them, or when they are freed. */
  hint: string
}

/** Which problems a receiver of alerts gets. */
export interface AlertFilter {
  /** Absent for all. */
  kinds?: string[]
  /** Absent for all. */
  projects?: string[]
  /** At least as bad as this; 'unknown': a severity of a later version, and nothing passes. */
  severity: 'info' | 'warning' | 'critical' | 'unknown'
}

/** A receiver of alerts. */
export interface ReceiverRow {
  name: string
  kind: 'webhook' | 'command'
  /** The URL without what may be secret, or the command. */
  target: string
  /** 'unknown': a form of a later version, in which the answering node sends nothing. */
  format: 'json' | 'text' | 'slack' | 'discord' | 'unknown'
  filter: AlertFilter
  /** Name of the node that sends to it; empty if none does. */
  sender: string
  /** How many alerts it has whose problems have not ended. */
  firing: number
  /** Why alerts do not reach it; empty if they do. */
  problem: string
  added_by: string
  added: Millis
}

/** What deployers may let the services of a project use of their hosts. */
export interface ProjectPolicy {
  privileged?: boolean
  devices?: boolean
  capabilities?: boolean
  security_options?: boolean
  host_paths?: string[]
}

/** What a token admits. */
export type TokenSubject =
  | { node: { name: string; role: NodeRole } }
  /** `projects`: the only ones; absent for all. `logs`: whether a viewer may read logs. */
  | { user: { name: string; role: UserRole; projects?: string[]; logs?: boolean } }

/** An HTTP request to an instance, see {@link Mesh.fetch}. */
export interface FetchRequest {
  service: string
  /** The published port; `null` for the only one. */
  port: number | null
  method: string
  /** Path and query, starting with a slash. */
  target: string
  headers: HeaderList
  /** Whether a body follows. */
  body: boolean
}

/** A request for a WebSocket to an instance, see {@link Mesh.socket}. */
export interface SocketRequest {
  service: string
  port: number | null
  target: string
  headers: HeaderList
  protocols: string[]
}

/** A command to run in an instance, see {@link Mesh.exec}. */
export interface ExecRequest {
  service: string
  /** `null` for the first one that runs. */
  replica: number | null
  /** The program with its arguments. */
  command: string[]
  /** Whether to allocate a terminal. */
  tty: boolean
  /** Whether to attach standard input. */
  stdin: boolean
  /** `KEY=value`, in addition to those of the container. */
  environment: string[]
  /** `null` for that of the container. */
  user: string | null
  working_dir: string | null
  /** Columns and rows of the terminal. */
  size: [columns: number, rows: number] | null
}

/** A request. `service` and `node` are as users write them: `web` or `shop/web`; a name or an id. */
export type Request =
  | { op: 'status' | 'nodes' | 'services' | 'images' | 'volumes' | 'projects' | 'live' | 'multiplex' }
  | { op: 'instances'; service: string | null }
  /** `show_values`: whether the values of environment variables are to be shown, which are `***` otherwise; needs a deployer. */
  | { op: 'usage'; service: string | null; node: string | null }
  | { op: 'inspect'; service: string; show_values?: boolean }
  | { op: 'restart' | 'rollback' | 'remove' | 'history' | 'runs'; service: string }
  | { op: 'rollback_to'; service: string; version: number }
  | { op: 'scale'; service: string; replicas: number }
  | { op: 'rebalance'; apply: boolean }
  | { op: 'plan'; deployments: Deployment[] }
  | {
      op: 'diff' | 'deploy'
      deployments: Deployment[]
      files: FileContent[]
      pull?: boolean
      force?: boolean
      /** 32 hexadecimal digits by which the logs of all nodes name what follows; of `deploy` alone. */
      trace?: string
    }
  | { op: 'compose'; text: string; project: string | null }
  | { op: 'drain'; node: string; drain: boolean }
  | { op: 'leave'; node: string; force: boolean }
  | { op: 'move_volume'; volume: string; to: string }
  | { op: 'remove_volume' | 'forget_volume' | 'snapshot_volume'; volume: string }
  | { op: 'snapshots'; volume: string; node: NodeId }
  | { op: 'restore_volume'; volume: string; snapshot: { epoch: number; number: number }; conflict?: boolean }
  | { op: 'undelete_volume'; volume: string; node: NodeId }
  | { op: 'clone_volume'; volume: string; snapshot: { epoch: number; number: number }; node: NodeId; to: string }
  | { op: 'adopt_volume'; volume: string; node: string; source: string }
  | { op: 'allow_project' | 'deny_project'; project: string; policy: ProjectPolicy }
  | { op: 'disk_usage' | 'node_program'; node: NodeId }
  | { op: 'remove_images'; references: string[] }
  | { op: 'prune_images'; apply: boolean }
  | { op: 'receivers' }
  | {
      op: 'add_receiver'
      name: string
      target: { type: 'webhook'; url: string } | { type: 'command'; command: string[] }
      format?: Exclude<ReceiverRow['format'], 'unknown'>
      filter?: AlertFilter
    }
  | { op: 'remove_receiver' | 'test_receiver'; name: string }
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
  | ({ op: 'exec' } & ExecRequest)

/** One thing that a command changed, or left as it is. Later versions may send kinds that are not listed. */
export type Change =
  | { change: 'created' | 'redeployed' | 'removed' | 'restarting'; service: ServiceKey }
  | { change: 'updated' | 'unchanged'; service: ServiceKey; note?: string }
  | { change: 'rolled_back'; service: ServiceKey; version?: number }
  | { change: 'scaled'; service: ServiceKey; from: number; to: number }
  | { change: 'moving'; slot: string; from: string; from_name: string; to: string; to_name: string; reason: string }
  | { change: 'drained'; node: string; node_name: string }
  | { change: 'undrained'; node: string; node_name: string; unchanged?: boolean }
  | { change: 'left'; node: string; node_name: string; knows_key?: true; volumes?: string[]; majority_lost?: true }
  | { change: 'image_pushed' | 'image_unchanged' | 'image_removed'; reference: string; id: string }
  | {
      change: 'adopted'
      node: string
      node_name: string
      former: string
      containers: number
      volumes: string[]
      left: string[]
    }
  | { change: 'upgrading'; node: string; node_name: string; from: string; to: string; digest: string }
  | { change: 'volume_removed' | 'volume_forgotten'; volume: string }
  | { change: 'snapshot_taken'; volume: string; snapshot: string; node_name: string }
  | { change: 'volume_created'; volume: string; from: string; node_name: string; snapshot: string; bytes: number }
  | { change: 'volume_restored'; volume: string; from: string; snapshot: string }
  | { change: 'volume_replaced'; volume: string; before: string; snapshot: string }
  | { change: 'volume_changed'; volume: string; path: string; node_name: string }
  | { change: 'volume_undeleted'; volume: string; node_name: string }
  | { change: 'token_revoked'; token: string }
  | { change: 'user_revoked'; user: string }
  | { change: 'traced'; trace: string }
  | { change: 'receiver_added' | 'receiver_removed'; receiver: string }
  | { change: 'receiver_tested'; receiver: string; node_name: string }
  | { change: 'policy_changed'; project: string; allowed: string[] }
  | { change: 'files_sealed'; files: number }
  | { change: 'voter_wished'; node: string; node_name: string; votes: boolean | null }
  | { change: 'voters_forced'; number: number; voters: string[]; names: string[] }
  | { change: 'signing_key_rotated'; epoch: number; members: string[] }

/** An answer to a request. */
export type Reply =
  | { reply: 'done'; value: Change[] }
  | { reply: 'plan'; value: PlanReport }
  | { reply: 'services'; value: ServiceRow[] }
  | { reply: 'instances'; value: InstanceRow[] }
  | { reply: 'usage'; value: UsageRow[] }
  | { reply: 'watched'; value: { services: ServiceRow[]; instances: InstanceRow[] } }
  | { reply: 'diff'; value: ServiceDiff[] }
  | { reply: 'service'; value: ServiceDetail }
  | { reply: 'history'; value: VersionRow[] }
  | { reply: 'runs'; value: RunRow[] }
  | { reply: 'moves'; value: MoveRow[] }
  | { reply: 'images'; value: ImageRow[] }
  | { reply: 'volumes'; value: VolumeRow[] }
  | { reply: 'snapshots'; value: SnapshotRow[] }
  | { reply: 'projects'; value: ProjectRow[] }
  | { reply: 'disk_usage'; value: DiskUsageRow[] }
  | { reply: 'program'; value: ProgramRow }
  | { reply: 'receivers'; value: ReceiverRow[] }
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

/** A job: a service whose instances run to completion. */
export interface JobRow {
  service: ServiceKey
  project: string
  /** `replicated-job` or `global-job`. */
  mode: string
  /** Its cron expression; empty without a schedule. */
  schedule: string
  time_zone: string
  /** `forbid`, `allow` or `replace`; empty without a schedule. */
  overlap: string
  at_most_once: boolean
  /** Whether the schedule rests, as the service is scaled to 0. */
  suspended: boolean
  /** The next time of the schedule; 0 without one. */
  next: Millis
  /** Number of runs that are under way. */
  running: number
  /** The run that ended, or was left out, last. */
  last: RunRow | null
}

/** A run of a job. */
export interface RunRow {
  service: ServiceKey
  /** Number of its slot; for a scheduled service its time in seconds since 1970. */
  run: number
  state: 'pending' | 'running' | 'succeeded' | 'failed' | 'unknown' | 'missed' | 'skipped' | 'stopped'
  reason: string
  node: NodeId | null
  node_name: string | null
  started: Millis
  ended: Millis
  exit_code: number | null
  restarts: number
  missed: number
  by: string
}
