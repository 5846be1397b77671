// A fake mesh client for tests of the page: replies from the fixtures and records requests.

import type { ExecRequest, MeshOptions, MeshState, Reply, Request, RunningCommand, ServiceRow, TokenClaims, View } from 'vc-mesh'

import { clusterView, ID, images, plan, previousSpec, snapshots, spec, statusOf, usage, volumes } from './fixtures'

export class MeshError extends Error {}

type ViewListener = (view: View, changed: ReadonlySet<keyof View>) => void

export class Mesh {
  state: MeshState = { state: 'connecting', since: Date.now() }
  view: View = { status: null, nodes: [], services: [], instances: [], events: [] }
  readonly claims: TokenClaims
  readonly requests: Request[] = []
  readonly #states = new Set<(state: MeshState) => void>()
  readonly #views = new Set<ViewListener>()
  readonly #role: 'viewer' | 'deployer' | 'admin'

  constructor({ token }: MeshOptions) {
    const claims = JSON.parse(atob(token.split('.')[1] ?? '')) as TokenClaims & { scope: { user: 'viewer' } }
    this.claims = claims
    this.#role = claims.scope.user
    ;(globalThis as { fakeMesh?: Mesh }).fakeMesh = this
  }

  onState(listener: (state: MeshState) => void): () => void {
    this.#states.add(listener)
    listener(this.state)
    return () => this.#states.delete(listener)
  }

  onView(listener: ViewListener): () => void {
    this.#views.add(listener)
    return () => this.#views.delete(listener)
  }

  start(): void {
    this.become({ state: 'live', node: ID.alpha, address: '', rttMs: 2.4, role: this.#role, user: this.claims.sub })
    this.show(clusterView(Date.now()))
  }

  become(state: MeshState): void {
    this.state = state
    for (const listener of this.#states) listener(state)
  }

  show(view: View): void {
    this.view = { ...view, status: statusOf(view.nodes, view.services, view.instances) }
    const changed = new Set(Object.keys(view) as (keyof View)[])
    for (const listener of this.#views) listener(this.view, changed)
  }

  known(): string[] {
    return []
  }

  async request(request: Request): Promise<Reply> {
    this.requests.push(request)
    switch (request.op) {
      case 'plan':
        return { reply: 'plan', value: request.deployments.length > 0 ? plan : { ...plan, unplaced: [], placements: plan.placements.slice(0, 3), moves: [] } }
      case 'images':
        return { reply: 'images', value: images(Date.now()) }
      case 'snapshots':
        return { reply: 'snapshots', value: snapshots(request.volume, request.node, Date.now()) }
      case 'usage':
        return { reply: 'usage', value: usage(this.view.instances, request.service, request.node, Date.now()) }
      case 'volumes':
        return { reply: 'volumes', value: volumes(Date.now()) }
      case 'inspect': {
        const row = this.view.services.find((it) => it.service === request.service)
        if (!row) throw new MeshError(`service ${request.service} not found`)
        return { reply: 'service', value: { row, deployed_by: 'anna', spec, previous: previousSpec, instances: [] } }
      }
      case 'diff':
        return {
          reply: 'diff',
          value: [
            { service: 'shop/queue', created: true, changes: ['container.image: "rabbitmq:4"', 'container.reservation.memory: "4 GiB"', 'replicas: 2'] },
            { service: 'shop/web', created: false, changes: ['container.image: "web:1.5.0" -> "web:1.6.0"', 'container.environment.WORKERS: "4" -> "8"'] },
          ],
        }
      case 'compose':
        if (!request.text.includes('services')) throw new MeshError('compose.yaml: services: missing; a file requires at least one service')
        return {
          reply: 'composed',
          value: {
            project: 'shop',
            deployments: [
              { service: 'shop/web', replicas: 3, spec },
              { service: 'shop/queue', replicas: 2, spec },
            ],
            files: [],
            warnings: ['services.web.environment.TOKEN: plain text in the file; use a secret'],
          },
        }
      case 'deploy': {
        const queue: ServiceRow = { ...(this.view.services[0] as ServiceRow), service: 'shop/queue', replicas: 2, running: 0, healthy: 0, ports: [], updated: Date.now(), revision: 3 }
        this.show({ ...this.view, services: [...this.view.services, queue] })
        return { reply: 'done', value: [{ change: 'updated', service: 'shop/web' }, { change: 'created', service: 'shop/queue' }] }
      }
      case 'scale':
        this.show({
          ...this.view,
          services: this.view.services.map((row) => (row.service === request.service ? { ...row, replicas: request.replicas } : row)),
        })
        return { reply: 'done', value: [{ change: 'scaled', service: request.service, from: 1, to: request.replicas }] }
      case 'drain':
        this.show({ ...this.view, nodes: this.view.nodes.map((row) => (row.id === request.node ? { ...row, draining: request.drain } : row)) })
        return { reply: 'done', value: [{ change: request.drain ? 'drained' : 'undrained', node: request.node, node_name: request.node.slice(-8) }] }
      case 'restart':
        throw new MeshError('an update of this service is in progress; wait for its end, or roll it back')
      default:
        return { reply: 'done', value: [] }
    }
  }

  async *stream(request: Request, { signal }: { signal?: AbortSignal } = {}): AsyncGenerator<Reply> {
    this.requests.push(request)
    if (request.op !== 'logs') return
    const line = (n: number): Reply => ({
      reply: 'log',
      value: {
        service: request.service,
        replica: (n % 3) + 1,
        node: ID.alpha,
        time: Date.now(),
        stream: n % 11 === 0 ? 'stderr' : 'stdout',
        line: n % 11 === 0 ? `\x1b[31mWARN\x1b[0m slow query: ${200 + (n % 70)} ms` : `GET /products/${n} 200 ${(n * 7) % 40} ms`,
      },
    })
    for (let n = 0; n < 200; n += 1) yield line(n)
    if (request.follow && !signal?.aborted) await new Promise((resolve) => signal?.addEventListener('abort', resolve))
  }

  /** Runs a shell that writes back what it gets, and ends at a line `exit`. */
  async exec(request: ExecRequest): Promise<RunningCommand> {
    this.requests.push({ op: 'exec', ...request })
    const pieces: Uint8Array[] = [new TextEncoder().encode(`\x1b[32mroot@web\x1b[0m:/# `)]
    let typed = ''
    let wake = () => {}
    return {
      async *output() {
        for (;;) {
          const piece = pieces.shift()
          if (piece) yield piece
          else if (typed.endsWith('exit\r')) return 3
          else await new Promise<void>((resolve) => (wake = resolve))
        }
      },
      write(bytes) {
        typed += new TextDecoder().decode(bytes)
        pieces.push(bytes)
        wake()
      },
      resize: () => {},
      close: () => wake(),
    }
  }

  close(): void {
    this.become({ state: 'closed' })
  }
}
