// The client-side state: signals that the mesh client's pushed updates set, and the clock.

import { batch, computed, signal, type ReadonlySignal } from '@preact/signals'
import { createContext } from 'preact'
import { useContext } from 'preact/hooks'
import type { EventRow, InstanceRow, Mesh, MeshState, NodeRow, ServiceRow, StatusReport, UserRole } from 'vc-mesh'

import { storePeers } from './credentials'
import { shortId } from './units'
import { nodeSamples, type Sample, UsageHistory } from './usage'

/** A user's session with a cluster. */
export interface Session {
  readonly mesh: Mesh
  readonly connection: ReadonlySignal<MeshState>
  /** The last live connection: it keeps the user and role while the connection is lost. */
  readonly attached: ReadonlySignal<LiveConnection | null>
  readonly isLive: ReadonlySignal<boolean>
  readonly status: ReadonlySignal<StatusReport | null>
  readonly nodes: ReadonlySignal<NodeRow[]>
  /** What nodes have used since the session began, by id. */
  readonly nodeUsage: ReadonlySignal<ReadonlyMap<string, readonly Sample[]>>
  readonly services: ReadonlySignal<ServiceRow[]>
  readonly instances: ReadonlySignal<InstanceRow[]>
  /** Newest last. */
  readonly events: ReadonlySignal<EventRow[]>
  /** When the last live connection was lost, milliseconds since the epoch: the view is stale since then. */
  readonly staleSince: ReadonlySignal<number>
  /** Closes the connection and ends the updates. */
  close(): void
}

export type LiveConnection = Extract<MeshState, { state: 'live' }>

/** Creates a session whose signals follow the mesh client. */
export function openSession(mesh: Mesh): Session {
  const connection = signal<MeshState>(mesh.state)
  const attached = signal<LiveConnection | null>(null)
  const status = signal(mesh.view.status)
  const nodes = signal(mesh.view.nodes)
  const services = signal(mesh.view.services)
  const instances = signal(mesh.view.instances)
  const events = signal(mesh.view.events)
  const usage = new UsageHistory()
  const staleSince = signal(Date.now())

  const unsubscribeState = mesh.onState((state) => {
    batch(() => {
      now.value = Date.now()
      if (connection.peek().state === 'live' && state.state !== 'live') staleSince.value = now.value
      connection.value = state
      if (state.state === 'live') attached.value = state
    })
  })
  const unsubscribeView = mesh.onView((view, changed) => {
    batch(() => {
      status.value = view.status
      nodes.value = view.nodes
      services.value = view.services
      instances.value = view.instances
      events.value = view.events
    })
    if (changed.has('nodes')) usage.add(nodeSamples(view.nodes, Date.now()))
    if (changed.has('nodes')) storePeers(mesh.claims.aud, mesh.known())
  })

  return {
    mesh,
    connection,
    attached,
    isLive: computed(() => connection.value.state === 'live'),
    status,
    nodes,
    nodeUsage: usage.samples,
    services,
    instances,
    events,
    staleSince,
    close() {
      unsubscribeState()
      unsubscribeView()
      mesh.close()
    },
  }
}

export const SessionContext = createContext<Session | null>(null)

/** Returns the session of the page. Throws outside `SessionContext`. */
export function useSession(): Session {
  const session = useContext(SessionContext)
  if (!session) throw new Error('this component requires a session')
  return session
}

const RANK: Record<UserRole, number> = { viewer: 0, deployer: 1, admin: 2 }

/** Returns why the user cannot perform an action that requires `role` now; empty if it is allowed. */
export function unavailableReason(session: Session, role: UserRole): string {
  const attached = session.attached.value
  if (!attached || !session.isLive.value) return 'Not connected to a node.'
  if (RANK[attached.role] >= RANK[role]) return ''
  return `Requires the role ${role}; ${attached.user} is ${attached.role}.`
}

/** Returns the name of a node, or the end of its id if the view does not contain it. */
export function nodeName(nodes: readonly { id: string; name: string }[], id: string): string {
  return nodes.find((row) => row.id === id)?.name ?? shortId(id)
}

/** The current time, milliseconds since the epoch, updated every ten seconds: the base of relative times. */
export const now = signal(Date.now())

/** Starts the page's only timer. */
export function startClock(): void {
  setInterval(() => (now.value = Date.now()), 10_000)
}
