// What the page knows of the cluster: signals that the mesh's pushes set, and nothing else does.

import { batch, computed, signal, type ReadonlySignal } from '@preact/signals'
import { createContext } from 'preact'
import { useContext } from 'preact/hooks'
import type { EventRow, InstanceRow, Mesh, MeshState, NodeRow, ServiceRow, StatusReport, UserRole } from 'vc-mesh'

import { keepPeers } from './arrival'

/** A user on a cluster. */
export interface Session {
  readonly mesh: Mesh
  readonly link: ReadonlySignal<MeshState>
  /** The link when it was last good: who the user is does not change when it breaks. */
  readonly attached: ReadonlySignal<Attachment | null>
  readonly isLive: ReadonlySignal<boolean>
  readonly status: ReadonlySignal<StatusReport | null>
  readonly nodes: ReadonlySignal<NodeRow[]>
  readonly services: ReadonlySignal<ServiceRow[]>
  readonly instances: ReadonlySignal<InstanceRow[]>
  /** Newest last. */
  readonly events: ReadonlySignal<EventRow[]>
  /** Until when what is shown is known to have been so: when the link broke. Milliseconds since the epoch. */
  readonly knownUntil: ReadonlySignal<number>
  /** Ends it: nothing is heard any more. */
  end(): void
}

export type Attachment = Extract<MeshState, { state: 'live' }>

export function openSession(mesh: Mesh): Session {
  const link = signal<MeshState>(mesh.state)
  const attached = signal<Attachment | null>(null)
  const status = signal(mesh.view.status)
  const nodes = signal(mesh.view.nodes)
  const services = signal(mesh.view.services)
  const instances = signal(mesh.view.instances)
  const events = signal(mesh.view.events)
  const knownUntil = signal(Date.now())

  const offState = mesh.onState((state) => {
    batch(() => {
      now.value = Date.now()
      if (link.peek().state === 'live' && state.state !== 'live') knownUntil.value = now.value
      link.value = state
      if (state.state === 'live') attached.value = state
    })
  })
  const offView = mesh.onView((view, changed) => {
    batch(() => {
      status.value = view.status
      nodes.value = view.nodes
      services.value = view.services
      instances.value = view.instances
      events.value = view.events
    })
    if (changed.has('nodes')) keepPeers(mesh.claims.aud, mesh.known())
  })

  return {
    mesh,
    link,
    attached,
    isLive: computed(() => link.value.state === 'live'),
    status,
    nodes,
    services,
    instances,
    events,
    knownUntil,
    end() {
      offState()
      offView()
      mesh.close()
    },
  }
}

export const SessionContext = createContext<Session | null>(null)

/** The session of the page; only below the sign-in. */
export function useSession(): Session {
  const session = useContext(SessionContext)
  if (!session) throw new Error('this part of the page needs a session')
  return session
}

const RANK: Record<UserRole, number> = { viewer: 0, deployer: 1, admin: 2 }

/** Why the user cannot do now what takes this role; empty: he can. */
export function hindrance(session: Session, needs: UserRole): string {
  const attached = session.attached.value
  if (!attached || !session.isLive.value) return 'Not connected to a node.'
  if (RANK[attached.role] >= RANK[needs]) return ''
  return `Takes the role ${needs}; ${attached.user} is ${attached.role}.`
}

/** Now, ten seconds fine: what relative times are told from. The page's only timer. */
export const now = signal(Date.now())

/** Starts the clock. */
export function startClock(): void {
  setInterval(() => (now.value = Date.now()), 10_000)
}
