import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { RpcChannel } from '../src/rpc-channel'
import type { HeaderList } from '../src/protocol'
import type { AppMesh } from '../src/app-server'
import { AppServer, MAX_REQUESTS, MAX_QUEUED } from '../src/app-server'

const APP = { service: 'shop/web', port: 8080 }
const GET = { method: 'GET', target: '/', headers: [] as HeaderList, body: null, hold: false, signal: null }
type Exchange = AppMesh['exchange']

/** A live mesh without requests. */
const idleMesh = { state: { state: 'live' }, claims: { aud: 'c' }, onState: () => () => {}, socket: () => expect.fail() }

interface Connected {
  channel: RpcChannel
  server: AppServer
  /** State of the mesh; `become` changes it and notifies the listeners. */
  state: { state: string }
  become(state: string): void
}

/** Returns a console whose mesh answers with `exchange`, and a channel to it. */
function connected(exchange: Exchange): Connected {
  const state = { state: 'live' }
  const listeners: ((now: typeof state) => void)[] = []
  const onState: AppMesh['onState'] = (listener) => {
    listeners.push(listener)
    listener(state)
    return () => {}
  }
  const become = (now: string): void => {
    state.state = now
    for (const listener of listeners) listener(state)
  }
  const socket = (): never => {
    throw new Error('not here')
  }
  const server = new AppServer({ state, claims: { aud: 'cluster' }, onState, exchange, socket }, APP)
  const { port1, port2 } = new MessageChannel()
  server.serve(port2)
  const channel = new RpcChannel(port1, APP)
  onTestFinished(() => {
    channel.close()
    server.close()
  })
  return { channel, server, state, become }
}

const answering = (body: BodyInit | null = null): Exchange => async () => ({
  head: { status: 200, headers: [] },
  body: new Response(body).body ?? new ReadableStream({ start: (it) => it.close() }),
})

const text = async (stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<string> => new Response(stream).text()

describe('RpcChannel', () => {
  it('holds a request until an instance answers, unless it is refused for good', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    onTestFinished(() => void vi.useRealTimers())
    const failed = (code: string, status: string | null) => Object.assign(new Error(code), { code, status })
    const outcomes: (Error | 'answer')[] = [failed('lost', null), failed('refused', 'unavailable'), failed('failed', null), 'answer']
    const { channel, become } = connected(async (...args) => {
      const next = outcomes.shift()
      if (next instanceof Error) throw next
      return answering('at last')(...args)
    })
    become('lost')
    const response = channel.request({ ...GET, hold: true })
    await vi.waitFor(async () => {
      if (outcomes.length > 2) become('live')
      await vi.advanceTimersByTimeAsync(1000)
      expect(outcomes).toEqual([])
    })
    expect(await text((await response).body)).toBe('at last')
    outcomes.push(failed('refused', 'not_found'))
    await expect(channel.request({ ...GET, hold: true })).rejects.toMatchObject({ code: 'refused' })
  })

  it('adds the credentials that were set to requests without any', async () => {
    const sent: unknown[] = []
    const { channel } = connected(async (request, ...args) => {
      sent.push(request.headers)
      return answering()(request, ...args)
    })
    expect((await channel.request(GET)).authorized).toBe(false)
    channel.setCredentials('Basic YTpi')
    expect((await channel.request(GET)).authorized).toBe(true)
    const own: HeaderList = [['Authorization', 'Bearer c']]
    expect((await channel.request({ ...GET, headers: own })).authorized).toBe(false)
    expect(sent).toEqual([[], [['authorization', 'Basic YTpi']], own])
  })

  it('requests the service port that it is bound to', async () => {
    const requests: unknown[] = []
    const { channel } = connected(async (request, body) => {
      requests.push(request)
      return { head: { status: 201, headers: [['x-a', 'b']] }, body: body ?? new ReadableStream() }
    })
    const body = new Response('up and down').body
    const answer = await channel.request({ ...GET, method: 'POST', target: '/a?b', headers: [['x', 'y']], body })
    expect(answer).toMatchObject({ status: 201, headers: [['x-a', 'b']] })
    expect(await text(answer.body)).toBe('up and down')
    expect(requests).toEqual([{ ...APP, method: 'POST', target: '/a?b', headers: [['x', 'y']], body: true }])
  })

  it('can be forked, and the fork outlives it', async () => {
    const { channel } = connected(answering('there'))
    const other = new RpcChannel(channel.fork(), APP)
    expect(await other.alive()).toBe(true)
    channel.close()
    expect(await text((await other.request(GET)).body)).toBe('there')
    other.close()
  })

  it('reports whether the cluster is reachable, and the error if not', async () => {
    const { channel, state } = connected(async () => Promise.reject(Object.assign(new Error('no such port'), { code: 'refused' })))
    expect(await channel.reachesCluster()).toBe(true)
    await expect(channel.request(GET)).rejects.toMatchObject({ code: 'refused', message: 'no such port' })
    state.state = 'lost'
    expect(await channel.reachesCluster()).toBe(false)
    await expect(channel.request(GET)).rejects.toMatchObject({ code: 'unreachable' })
  })

  it('closes with the console and fails its requests', async () => {
    const { channel, server } = connected(() => new Promise(() => {}))
    const waiting = channel.request(GET)
    await channel.alive()
    server.close()
    await expect(waiting).rejects.toMatchObject({ code: 'gone' })
    expect(await channel.alive()).toBe(false)
    await expect(channel.request(GET)).rejects.toMatchObject({ code: 'gone' })
  })

  it('closes when the mesh is closed or refused, but not while it reconnects', async () => {
    for (const end of ['closed', 'refused']) {
      const { channel, server, become } = connected(() => new Promise(() => {}))
      for (const state of ['lost', 'connecting']) become(state)
      expect(await channel.alive()).toBe(true)
      become('live')
      const waiting = channel.request(GET)
      await channel.reachesCluster()
      become(end)
      await expect(waiting).rejects.toMatchObject({ code: 'gone' })
      expect(await channel.alive()).toBe(false)
      // A channel that is served afterwards is closed at once.
      const { port1, port2 } = new MessageChannel()
      server.serve(port2)
      expect(await new RpcChannel(port1, APP).alive()).toBe(false)
    }
  })

  it('has at most MAX_REQUESTS requests in flight and queues the rest', async () => {
    let running = 0
    let most = 0
    const { channel } = connected(async (_request, _body, options) => {
      most = Math.max(most, ++running)
      // The reply to this call comes after the server has handled every request that was sent before it.
      expect(await channel.alive()).toBe(true)
      expect(options?.signal?.aborted).toBe(false)
      running -= 1
      return { head: { status: 200, headers: [] }, body: new ReadableStream({ start: (it) => it.close() }) }
    })
    const answers = await Promise.all(Array.from({ length: 3 * MAX_REQUESTS }, () => channel.request(GET)))
    await Promise.all(answers.map(({ body }) => text(body)))
    expect(most).toBe(MAX_REQUESTS)
  })

  it('queues at most MAX_QUEUED requests and fails the next at once', async () => {
    let answerAll = (): void => {}
    const asked = new Promise<void>((resolve) => (answerAll = resolve))
    const { channel } = connected(async (...request) => asked.then(() => answering()(...request)))
    const ask = async (): Promise<string> => channel.request(GET).then(({ body }) => text(body))
    const taken = Array.from({ length: MAX_REQUESTS + MAX_QUEUED }, ask)
    await expect(ask()).rejects.toMatchObject({ code: 'failed', message: expect.stringContaining('512 requests') })
    answerAll()
    expect(new Set(await Promise.all(taken))).toEqual(new Set(['']))
    expect(await ask()).toBe('')
  })

  it('aborts the mesh request when the response is aborted', async () => {
    const stop = new AbortController()
    let report = (): void => {}
    const stopped = new Promise<void>((resolve) => (report = resolve))
    const { channel } = connected(async (_request, _body, options) => {
      options?.signal?.addEventListener('abort', () => report())
      return { head: { status: 200, headers: [] }, body: new ReadableStream() }
    })
    const answer = await channel.request({ ...GET, signal: stop.signal })
    stop.abort()
    await stopped
    await expect(text(answer.body)).rejects.toThrow(/was aborted/)
  })

  it('aborts the mesh request before there is a response, without the close event of ports', async () => {
    const { addEventListener } = MessagePort.prototype
    const spy = vi.spyOn(MessagePort.prototype, 'addEventListener')
    spy.mockImplementation(function (this: MessagePort, type: string, ...rest: [never]) {
      if (type !== 'close') addEventListener.call(this, type, ...rest)
    })
    onTestFinished(() => spy.mockRestore())
    const stops: AbortController[] = []
    let asked = 0
    let stopped = 0
    const { channel } = connected((_request, _body, options) => {
      asked += 1
      return new Promise((_, reject) => {
        options?.signal?.addEventListener('abort', () => {
          stopped += 1
          reject(new Error('aborted'))
        })
      })
    })
    const ask = (signal: AbortSignal): Promise<unknown> => channel.request({ ...GET, signal }).catch((error: Error) => error)
    for (let i = 0; i < MAX_REQUESTS; i++) {
      const stop = new AbortController()
      stops.push(stop)
      void ask(stop.signal)
    }
    await expect.poll(() => asked).toBe(MAX_REQUESTS)
    for (const stop of stops) stop.abort()
    await expect.poll(() => stopped).toBe(MAX_REQUESTS)
    void ask(new AbortController().signal)
    await expect.poll(() => asked, { message: 'the permit is free again' }).toBe(MAX_REQUESTS + 1)
  })

  it('does not send a request that is aborted already', async () => {
    const { channel } = connected(() => expect.fail('asked'))
    await expect(channel.request({ ...GET, signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'gone' })
    expect(await channel.alive()).toBe(true)
  })

  it('rejects a request that is too large', async () => {
    const { channel } = connected(() => expect.fail('not passed on'))
    const long = 'u'.repeat(64 * 1024 + 1)
    const many: HeaderList = Array.from({ length: 129 }, () => ['a', 'b'])
    for (const [what, message] of [
      [{ target: `/${long}` }, 'the URL is larger than 64 KiB'],
      [{ headers: [['cookie', long]] }, "the header 'cookie' is larger than 64 KiB"],
      [{ headers: many }, 'the request has more than 128 headers'],
    ] satisfies [Partial<typeof GET>, string][]) {
      await expect(channel.request({ ...GET, ...what })).rejects.toMatchObject({ code: 'refused', message })
    }
    const { port1, port2 } = new MessageChannel()
    const event = new Promise((resolve) => (port1.onmessage = ({ data }) => resolve(data)))
    channel.socket('/', [['cookie', long]], [], port2)
    expect(await event).toEqual({ socket: 'closed', code: 1006, reason: '', clean: false })
    port1.close()
  })

  it('ignores malformed calls', async () => {
    const { port1, port2 } = new MessageChannel()
    new AppServer({ ...idleMesh, exchange: answering() }, APP).serve(port2)
    for (const message of [null, 7, 'ask', {}, { op: 'fetch' }, { op: 'fork' }, { op: 'socket', target: '/', headers: [['a']], protocols: [] }]) {
      port1.postMessage(message)
    }
    const channel = new RpcChannel(port1, APP)
    expect(await channel.alive()).toBe(true)
    channel.close()
  })
})
