import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'

import { MeshError } from '../src/api.js'
import { SessionPool } from '../src/session-pool.js'
import type { Session } from '../src/session.js'

/** A cluster that answers as a test says; nothing is dialled. */
class Network {
  readonly told: string[] = []
  readonly dialled: string[] = []
  readonly sessions = new Map<string, Session & { lose(): void }>()
  /** How each peer answers: not at all, unless said otherwise. */
  readonly answers = new Map<string, 'in' | 'refused' | 'down'>()
  readonly pool: SessionPool

  constructor(...peers: string[]) {
    this.pool = new SessionPool((address, signal) => this.#connect(address, signal), {
      onActive: (session) => this.told.push(`active ${session?.node ?? 'none'}`),
      onLost: (reason) => this.told.push(`lost: ${reason}`),
      onRefused: (reason) => this.told.push(`refused: ${reason}`),
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
      const mux = { closed, onStalled: () => {}, isIdle: true }
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

describe('the pool', () => {
  beforeEach(() => void vi.useFakeTimers())
  afterEach(() => void vi.useRealTimers())

  it('uses the first node that answers, keeps a second, and lets the others go', async () => {
    const network = new Network('a', 'b', 'c').all('in', 'a', 'b', 'c')
    await network.start()
    expect(network.told).toEqual(['active a'])
    expect(network.dialled).toEqual(['/a', '/b', '/c'])
    const closed = [...network.sessions.values()].filter(({ close }) => vi.mocked(close).mock.calls.length > 0)
    expect(closed.map(({ node }) => node)).toEqual(['c'])
  })

  it('goes over to the second at once when the first is gone, and finds another', async () => {
    const network = new Network('a', 'b', 'c').all('in', 'a', 'b')
    await network.start()
    network.all('down', 'a').all('in', 'c')
    network.sessions.get('a')?.lose()
    await network.pass(0)
    expect(network.told).toEqual(['active a', 'active b'])
    expect(network.dialled.slice(3)).toEqual(['/c'])
    network.sessions.get('b')?.lose()
    await network.pass(0)
    expect(network.told).toEqual(['active a', 'active b', 'active c'])
  })

  it('waits longer and longer for a node that is down, five seconds at most', async () => {
    const network = new Network('a').all('down', 'a')
    await network.start()
    expect(network.told).toEqual(['lost: no node answers (connection refused)'])
    const after = async (ms: number) => {
      await network.pass(ms - 1)
      const before = network.dialled.length
      await network.pass(1)
      return network.dialled.length - before
    }
    for (const pause of [200, 400, 800, 1600, 3200, 5000, 5000]) expect(await after(pause), `${pause} ms`).toBe(1)
    network.all('in', 'a')
    await network.pass(5000)
    expect(network.told.at(-1)).toBe('active a')
    network.sessions.get('a')?.lose()
    await network.pass(200)
    expect(network.told.at(-1)).toBe('active a')
  })

  it('dials at once when the network may be another', async () => {
    const network = new Network('a').all('down', 'a')
    await network.start()
    await network.pass(10_000)
    const before = network.dialled.length
    network.all('in', 'a').pool.redial()
    await network.pass(0)
    expect(network.dialled.length).toBe(before + 1)
    expect(network.told.at(-1)).toBe('active a')
  })

  it('dials anew whoever has not answered for a second when the network may be another', async () => {
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
    expect(network.told).toEqual(['active a'])
    await network.pass(60_000)
    expect(network.told).toEqual(['active a'])
  })

  it('gives a node that says nothing five seconds', async () => {
    const network = new Network('a', 'b').all('in', 'b')
    await network.start()
    expect(network.told).toEqual(['active b'])
    await network.pass(4999)
    expect(network.dialled).toEqual(['/a', '/b'])
    await network.pass(201)
    expect(network.dialled).toEqual(['/a', '/b', '/a'])
  })

  it('tries every address of a node, and takes the first that works', async () => {
    const network = new Network('a').all('in', 'a')
    network.pool.addAddress('a', '/a/other')
    await network.start()
    expect(network.dialled).toEqual(['/a', '/a/other'])
    expect(network.told).toEqual(['active a'])
  })

  it('learns of nodes on the way', async () => {
    const network = new Network('a').all('in', 'a', 'b')
    await network.start()
    network.pool.addAddress('b', '/b')
    await network.pass(0)
    expect(network.dialled).toEqual(['/a', '/b'])
    network.sessions.get('a')?.lose()
    await network.pass(0)
    expect(network.told).toEqual(['active a', 'active b'])
    expect(network.pool.known()).toEqual(['/b', '/a'])
  })

  it('dials a node where the cluster lists it now, and where it was told', async () => {
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

  it('goes on to the next when a node refuses the token, and keeps the sessions that it has', async () => {
    const network = new Network('a', 'b', 'c').all('refused', 'a').all('down', 'c').all('in', 'b')
    await network.start()
    expect(network.told).toEqual(['active b'])
    await network.pass(60_000)
    expect(network.told).toEqual(['active b'])
    network.all('in', 'a')
    await network.pass(5000)
    network.sessions.get('b')?.lose()
    await network.pass(0)
    expect(network.told).toEqual(['active b', 'active a'])
  })

  it('stops when the token is refused by all that answer', async () => {
    const network = new Network('a', 'b', 'c').all('refused', 'a', 'b')
    await network.start()
    expect(network.told).toEqual([])
    await network.pass(5000)
    expect(network.told.at(-1)).toBe('refused: the token expired')
    const before = network.dialled.length
    network.pool.redial()
    network.pool.start()
    await network.pass(60_000)
    expect(network.dialled.length).toBe(before)
  })

  it('dials nobody before it is started, and nobody after it is closed', async () => {
    const network = new Network('a').all('in', 'a')
    await network.pass(1000)
    expect(network.dialled).toEqual([])
    await network.start()
    network.pool.close()
    network.sessions.get('a')?.lose()
    await network.pass(60_000)
    expect(network.dialled).toEqual(['/a'])
    expect(network.told).toEqual(['active a'])
  })

  it('uses another while a node is quiet, without giving it up', async () => {
    const network = new Network('a', 'b', 'c').all('in', 'a', 'b')
    await network.start()
    network.all('in', 'c')
    const a = network.sessions.get('a')
    a?.mux.onStalled(true)
    await network.pass(0)
    expect(network.told).toEqual(['active a', 'active b'])
    expect(a?.close).not.toHaveBeenCalled()
    expect(network.dialled.slice(3)).toEqual(['/c'])

    a?.mux.onStalled(false)
    await network.pass(0)
    expect(network.told).toEqual(['active a', 'active b'])
    expect(network.sessions.get('c')?.close).toHaveBeenCalled()
    expect(a?.close).not.toHaveBeenCalled()
  })

  it('dials a quiet node again when there is no other: the network may be another', async () => {
    const network = new Network('a').all('in', 'a')
    await network.start()
    const first = network.sessions.get('a')
    first?.mux.onStalled(true)
    await network.pass(0)
    expect(network.dialled).toEqual(['/a', '/a'])
    expect(network.told).toEqual(['active a', 'active a'])
    expect(first?.close).not.toHaveBeenCalled()
  })

  it('stays with a quiet node when there is no other, and leaves it for the first that answers', async () => {
    const network = new Network('a', 'b').all('in', 'a').all('down', 'b')
    await network.start()
    network.all('down', 'a').sessions.get('a')?.mux.onStalled(true)
    await network.pass(0)
    expect(network.told).toEqual(['active a'])
    network.all('in', 'b')
    await network.pass(5000)
    expect(network.told).toEqual(['active a', 'active b'])
    expect(network.sessions.get('a')?.close).not.toHaveBeenCalled()
  })

  it('says that it knows nobody', async () => {
    const network = new Network()
    await network.start()
    expect(network.told).toEqual(['lost: '])
  })
})
