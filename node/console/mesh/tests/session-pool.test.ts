import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'

import { MeshError } from '../src/api.js'
import { SessionPool } from '../src/session-pool.js'
import type { Session } from '../src/session.js'

/** Simulates a cluster whose nodes answer as the test sets; nothing is dialled. */
class Network {
  readonly events: string[] = []
  readonly dialled: string[] = []
  readonly sessions = new Map<string, Session & { lose(): void }>()
  /** The answer of each peer; none if unset. */
  readonly answers = new Map<string, 'in' | 'refused' | 'down'>()
  readonly pool: SessionPool

  constructor(...peers: string[]) {
    this.pool = new SessionPool((address, signal) => this.#connect(address, signal), {
      onActive: (session) => this.events.push(`active ${session?.node ?? 'none'}`),
      onLost: (reason) => this.events.push(`lost: ${reason}`),
      onRefused: (reason) => this.events.push(`refused: ${reason}`),
    })
    for (const peer of peers) this.pool.addAddress(peer, `/${peer}`)
  }

  #connect(address: string, signal: AbortSignal): Promise<Session> {
    const node = address.split('/')[1] ?? ''
    this.dialled.push(address)
    return new Promise((resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason))
      const answer = this.answers.get(node)
      if (answer === 'down') reject(new Error('connection refused'))
      if (answer === 'refused') reject(new MeshError('refused', 'the token expired'))
      if (answer !== 'in') return
      let lose!: (reason: MeshError) => void
      const closed = new Promise<MeshError>((over) => (lose = over))
      const mux = { closed, onStalled: () => {}, isIdle: true, end: (reason: MeshError) => lose(reason) }
      const session = { node, address, role: 'admin', mux, close: vi.fn(), lose: () => lose(new MeshError('lost', `${node} is silent`)) }
      this.sessions.set(node, session as unknown as Session & { lose(): void })
      resolve(session as unknown as Session)
    })
  }

  all(answer: 'in' | 'refused' | 'down', ...peers: string[]): this {
    for (const peer of peers) this.answers.set(peer, answer)
    return this
  }

  async start(): Promise<void> {
    this.pool.start()
    await this.pass(0)
  }

  async pass(ms: number): Promise<void> {
    await vi.advanceTimersByTimeAsync(ms)
  }
}

describe('SessionPool', () => {
  beforeEach(() => void vi.useFakeTimers())
  afterEach(() => void vi.useRealTimers())

  it('activates the first node that answers, keeps a second session, and closes the others', async () => {
    const network = new Network('a', 'b', 'c').all('in', 'a', 'b', 'c')
    await network.start()
    expect(network.events).toEqual(['active a'])
    expect(network.dialled).toEqual(['/a', '/b', '/c'])
    const closed = [...network.sessions.values()].filter(({ close }) => vi.mocked(close).mock.calls.length > 0)
    expect(closed.map(({ node }) => node)).toEqual(['c'])
  })

  it('fails over to the standby session when the active one is lost, and replaces it', async () => {
    const network = new Network('a', 'b', 'c').all('in', 'a', 'b')
    await network.start()
    network.all('down', 'a').all('in', 'c')
    network.sessions.get('a')?.lose()
    await network.pass(0)
    expect(network.events).toEqual(['active a', 'active b'])
    expect(network.dialled.slice(3)).toEqual(['/c'])
    network.sessions.get('b')?.lose()
    await network.pass(0)
    expect(network.events).toEqual(['active a', 'active b', 'active c'])
  })

  it('ends a silent session once its node is reported down, and no other', async () => {
    const network = new Network('a', 'b', 'c').all('in', 'a', 'b')
    await network.start()
    network.pool.setDown(new Set(['a']))
    await network.pass(0)
    expect(network.events, 'it receives something: the report is late').toEqual(['active a'])
    network.pool.setDown(new Set())
    const ended: string[] = []
    for (const [peer, { mux }] of network.sessions) void mux.closed.then(({ message }) => ended.push(`${peer}: ${message}`))
    network.sessions.get('a')?.mux.onStalled(true)
    await network.pass(0)
    expect([network.events, ended]).toEqual([['active a', 'active b'], []])
    network.pool.setDown(new Set(['a']))
    await network.pass(0)
    expect(ended).toEqual(['a: the node is down'])
  })

  it('backs off exponentially for a node that is down, up to five seconds', async () => {
    const network = new Network('a').all('down', 'a')
    await network.start()
    expect(network.events).toEqual(['lost: no node answers (connection refused)'])
    const after = async (ms: number) => {
      await network.pass(ms - 1)
      const before = network.dialled.length
      await network.pass(1)
      return network.dialled.length - before
    }
    for (const pause of [200, 400, 800, 1600, 3200, 5000, 5000]) expect(await after(pause), `${pause} ms`).toBe(1)
    network.all('in', 'a')
    await network.pass(5000)
    expect(network.events.at(-1)).toBe('active a')
    network.sessions.get('a')?.lose()
    await network.pass(200)
    expect(network.events.at(-1)).toBe('active a')
  })

  it('dials at once after a network change', async () => {
    const network = new Network('a').all('down', 'a')
    await network.start()
    await network.pass(10_000)
    const before = network.dialled.length
    network.all('in', 'a').pool.redial()
    await network.pass(0)
    expect(network.dialled.length).toBe(before + 1)
    expect(network.events.at(-1)).toBe('active a')
  })

  it('dials again after a network change if a dial is older than a second', async () => {
    const network = new Network('a')
    await network.start()
    await network.pass(1000)
    network.pool.redial()
    await network.pass(0)
    expect(network.dialled).toEqual(['/a'])
    await network.pass(1)
    network.all('in', 'a').pool.redial()
    await network.pass(0)
    expect(network.dialled).toEqual(['/a', '/a'])
    expect(network.events).toEqual(['active a'])
    await network.pass(60_000)
    expect(network.events).toEqual(['active a'])
  })

  it('times out a dial after five seconds', async () => {
    const network = new Network('a', 'b').all('in', 'b')
    await network.start()
    expect(network.events).toEqual(['active b'])
    await network.pass(4999)
    expect(network.dialled).toEqual(['/a', '/b'])
    await network.pass(201)
    expect(network.dialled).toEqual(['/a', '/b', '/a'])
  })

  it('dials all addresses of a node and uses the first that works', async () => {
    const network = new Network('a').all('in', 'a')
    network.pool.addAddress('a', '/a/other')
    await network.start()
    expect(network.dialled).toEqual(['/a', '/a/other'])
    expect(network.events).toEqual(['active a'])
  })

  it('dials nodes that are added after the start', async () => {
    const network = new Network('a').all('in', 'a', 'b')
    await network.start()
    network.pool.addAddress('b', '/b')
    await network.pass(0)
    expect(network.dialled).toEqual(['/a', '/b'])
    network.sessions.get('a')?.lose()
    await network.pass(0)
    expect(network.events).toEqual(['active a', 'active b'])
    expect(network.pool.known()).toEqual(['/b', '/a'])
  })

  it('dials the configured and the listed addresses of a node', async () => {
    const network = new Network('a').all('in', 'a', 'b')
    const list = (b: string) => network.pool.setListed(new Map([['a', ['/a/1']], ['b', [b]]]))
    list('/b/1')
    list('/b/2')
    await network.start()
    expect(network.dialled).toEqual(['/a', '/a/1', '/b/2'])
    expect(network.pool.known()).toEqual(['/a', '/b/2', '/a/1'])
    network.pool.setListed(new Map([['b', ['/b/2']]]))
    expect(network.pool.known()).toEqual(['/a', '/b/2'])
  })

  it('dials other nodes when a node refuses the token, and keeps its sessions', async () => {
    const network = new Network('a', 'b', 'c').all('refused', 'a').all('down', 'c').all('in', 'b')
    await network.start()
    expect(network.events).toEqual(['active b'])
    await network.pass(60_000)
    expect(network.events).toEqual(['active b'])
    network.all('in', 'a')
    await network.pass(5000)
    network.sessions.get('b')?.lose()
    await network.pass(0)
    expect(network.events).toEqual(['active b', 'active a'])
  })

  it('stops when every node that answers refuses the token', async () => {
    const network = new Network('a', 'b', 'c').all('refused', 'a', 'b')
    await network.start()
    expect(network.events).toEqual([])
    await network.pass(5000)
    expect(network.events.at(-1)).toBe('refused: the token expired')
    const before = network.dialled.length
    network.pool.redial()
    network.pool.start()
    await network.pass(60_000)
    expect(network.dialled.length).toBe(before)
  })

  it('does not dial before start or after close', async () => {
    const network = new Network('a').all('in', 'a')
    await network.pass(1000)
    expect(network.dialled).toEqual([])
    await network.start()
    network.pool.close()
    network.sessions.get('a')?.lose()
    await network.pass(60_000)
    expect(network.dialled).toEqual(['/a'])
    expect(network.events).toEqual(['active a'])
  })

  it('uses another session while one is stalled, without closing it', async () => {
    const network = new Network('a', 'b', 'c').all('in', 'a', 'b')
    await network.start()
    network.all('in', 'c')
    const a = network.sessions.get('a')
    a?.mux.onStalled(true)
    await network.pass(0)
    expect(network.events).toEqual(['active a', 'active b'])
    expect(a?.close).not.toHaveBeenCalled()
    expect(network.dialled.slice(3)).toEqual(['/c'])

    a?.mux.onStalled(false)
    await network.pass(0)
    expect(network.events).toEqual(['active a', 'active b'])
    expect(network.sessions.get('c')?.close).toHaveBeenCalled()
    expect(a?.close).not.toHaveBeenCalled()
  })

  it('dials a stalled node again if there is no other', async () => {
    const network = new Network('a').all('in', 'a')
    await network.start()
    const first = network.sessions.get('a')
    first?.mux.onStalled(true)
    await network.pass(0)
    expect(network.dialled).toEqual(['/a', '/a'])
    expect(network.events).toEqual(['active a', 'active a'])
    expect(first?.close).not.toHaveBeenCalled()
  })

  it('keeps a stalled session active until another node answers', async () => {
    const network = new Network('a', 'b').all('in', 'a').all('down', 'b')
    await network.start()
    network.all('down', 'a').sessions.get('a')?.mux.onStalled(true)
    await network.pass(0)
    expect(network.events).toEqual(['active a'])
    network.all('in', 'b')
    await network.pass(5000)
    expect(network.events).toEqual(['active a', 'active b'])
    expect(network.sessions.get('a')?.close).not.toHaveBeenCalled()
  })

  it('reports that it has no addresses', async () => {
    const network = new Network()
    await network.start()
    expect(network.events).toEqual(['lost: '])
  })
})
