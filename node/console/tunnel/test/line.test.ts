import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { Flow, WINDOW } from '../src/flow'
import { Line } from '../src/line'
import type { HeaderList } from '../src/protocol'
import type { AppMesh } from '../src/serve'
import { AppServer, MAX_REQUESTS, MAX_WAITING } from '../src/serve'

const APP = { service: 'shop/web', port: 8080 }
const GET = { method: 'GET', target: '/', headers: [] as HeaderList, body: null, signal: null }
type Exchange = AppMesh['exchange']

/** A mesh that is asked nothing but how it is. */
const quiet = { state: { state: 'live' }, claims: { aud: 'c' }, onState: () => () => {}, socket: () => expect.fail() }

interface Connected {
  line: Line
  server: AppServer
  /** How the mesh is; whoever changes it says so with `become`. */
  state: { state: string }
  become(state: string): void
}

/** A console with this mesh, and a line to it. */
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
  const line = new Line(port1, APP)
  onTestFinished(() => {
    line.close()
    server.close()
  })
  return { line, server, state, become }
}

const answering = (body: BodyInit | null = null): Exchange => async () => ({
  head: { status: 200, headers: [] },
  body: new Response(body).body ?? new ReadableStream({ start: (it) => it.close() }),
})

const text = async (stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<string> => new Response(stream).text()

describe('a line', () => {
  it("asks for its own service's port, whoever uses it", async () => {
    const asked: unknown[] = []
    const { line } = connected(async (request, body) => {
      asked.push(request)
      return { head: { status: 201, headers: [['x-a', 'b']] }, body: body ?? new ReadableStream() }
    })
    const body = new Response('up and down').body
    const answer = await line.request({ ...GET, method: 'POST', target: '/a?b', headers: [['x', 'y']], body })
    expect(answer).toMatchObject({ status: 201, headers: [['x-a', 'b']] })
    expect(await text(answer.body)).toBe('up and down')
    expect(asked).toEqual([{ ...APP, method: 'POST', target: '/a?b', headers: [['x', 'y']], body: true }])
  })

  it('makes others, which outlive it', async () => {
    const { line } = connected(answering('there'))
    const other = new Line(line.fork(), APP)
    expect(await other.alive()).toBe(true)
    line.close()
    expect(await text((await other.request(GET)).body)).toBe('there')
    other.close()
  })

  it('says whether the cluster is in reach, and what stands in the way', async () => {
    const { line, state } = connected(async () => Promise.reject(Object.assign(new Error('no such port'), { code: 'refused' })))
    expect(await line.reachesCluster()).toBe(true)
    await expect(line.request(GET)).rejects.toMatchObject({ code: 'refused', message: 'no such port' })
    state.state = 'lost'
    expect(await line.reachesCluster()).toBe(false)
    await expect(line.request(GET)).rejects.toMatchObject({ code: 'lost' })
  })

  it('ends with the console, and so does what is under way on it', async () => {
    const { line, server } = connected(() => new Promise(() => {}))
    const waiting = line.request(GET)
    await line.alive()
    server.close()
    await expect(waiting).rejects.toMatchObject({ code: 'gone' })
    expect(await line.alive()).toBe(false)
    await expect(line.request(GET)).rejects.toMatchObject({ code: 'gone' })
  })

  it('ends with the mesh, when that does not come back, and not while it may', async () => {
    for (const end of ['closed', 'refused']) {
      const { line, server, become } = connected(() => new Promise(() => {}))
      for (const state of ['lost', 'connecting']) become(state)
      expect(await line.alive()).toBe(true)
      become('live')
      const waiting = line.request(GET)
      await line.reachesCluster()
      become(end)
      await expect(waiting).rejects.toMatchObject({ code: 'gone' })
      expect(await line.alive()).toBe(false)
      // Nor is there one for a window that was opened before and comes up after.
      const { port1, port2 } = new MessageChannel()
      server.serve(port2)
      expect(await new Line(port1, APP).alive()).toBe(false)
    }
  })

  it('has so many requests under way at once, and the rest wait', async () => {
    let running = 0
    let most = 0
    const { line } = connected(async (_request, _body, options) => {
      most = Math.max(most, ++running)
      await new Promise((resolve) => setTimeout(resolve, 5))
      expect(options?.signal?.aborted).toBe(false)
      running -= 1
      return { head: { status: 200, headers: [] }, body: new ReadableStream({ start: (it) => it.close() }) }
    })
    const answers = await Promise.all(Array.from({ length: 3 * MAX_REQUESTS }, () => line.request(GET)))
    await Promise.all(answers.map(({ body }) => text(body)))
    expect(most).toBe(MAX_REQUESTS)
  })

  it('has so many requests wait, and fails the next at once, saying how many', async () => {
    let answerAll = (): void => {}
    const asked = new Promise<void>((resolve) => (answerAll = resolve))
    const { line } = connected(async (...request) => asked.then(() => answering()(...request)))
    const ask = async (): Promise<string> => line.request(GET).then(({ body }) => text(body))
    const taken = Array.from({ length: MAX_REQUESTS + MAX_WAITING }, ask)
    await expect(ask()).rejects.toMatchObject({ code: 'failed', message: expect.stringContaining('512 requests') })
    answerAll()
    expect(new Set(await Promise.all(taken))).toEqual(new Set(['']))
    expect(await ask()).toBe('')
  })

  it('tells the mesh when an answer is not wanted any more', async () => {
    const stop = new AbortController()
    let tell = (): void => {}
    const stopped = new Promise<void>((resolve) => (tell = resolve))
    const { line } = connected(async (_request, _body, options) => {
      options?.signal?.addEventListener('abort', () => tell())
      return { head: { status: 200, headers: [] }, body: new ReadableStream() }
    })
    const answer = await line.request({ ...GET, signal: stop.signal })
    stop.abort()
    await stopped
    await expect(text(answer.body)).rejects.toThrow(/not wanted/)
  })

  it('tells the mesh so before there is an answer, also where browsers do not say that a port was closed', async () => {
    const { addEventListener } = MessagePort.prototype
    const spy = vi.spyOn(MessagePort.prototype, 'addEventListener')
    spy.mockImplementation(function (this: MessagePort, type: string, ...rest: [never]) {
      if (type !== 'close') addEventListener.call(this, type, ...rest)
    })
    onTestFinished(() => spy.mockRestore())
    const stops: AbortController[] = []
    let asked = 0
    let stopped = 0
    const { line } = connected((_request, _body, options) => {
      asked += 1
      return new Promise((_, reject) => {
        options?.signal?.addEventListener('abort', () => {
          stopped += 1
          reject(new Error('aborted'))
        })
      })
    })
    const ask = (signal: AbortSignal): Promise<unknown> => line.request({ ...GET, signal }).catch((error: Error) => error)
    for (let i = 0; i < MAX_REQUESTS; i++) {
      const stop = new AbortController()
      stops.push(stop)
      void ask(stop.signal)
    }
    await expect.poll(() => asked).toBe(MAX_REQUESTS)
    for (const stop of stops) stop.abort()
    await expect.poll(() => stopped).toBe(MAX_REQUESTS)
    void ask(new AbortController().signal)
    await expect.poll(() => asked, 'there is room for others').toBe(MAX_REQUESTS + 1)
  })

  it('does not ask for what is not wanted any more', async () => {
    const { line } = connected(() => expect.fail('asked'))
    await expect(line.request({ ...GET, signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'gone' })
    expect(await line.alive()).toBe(true)
  })

  it('answers at once what is too large to be passed on', async () => {
    const { line } = connected(() => expect.fail('not passed on'))
    const long = 'u'.repeat(64 * 1024 + 1)
    const many: HeaderList = Array.from({ length: 129 }, () => ['a', 'b'])
    for (const [what, message] of [
      [{ target: `/${long}` }, 'the URL is larger than 64 KiB'],
      [{ headers: [['cookie', long]] }, "the header 'cookie' is larger than 64 KiB"],
      [{ headers: many }, 'the request has more than 128 headers'],
    ] satisfies [Partial<typeof GET>, string][]) {
      await expect(line.request({ ...GET, ...what })).rejects.toMatchObject({ code: 'refused', message })
    }
    const { port1, port2 } = new MessageChannel()
    const told = new Promise((resolve) => (port1.onmessage = ({ data }) => resolve(data)))
    line.socket('/', [['cookie', long]], [], port2)
    expect(await told).toEqual({ socket: 'closed', code: 1006, reason: '', clean: false })
    port1.close()
  })

  it('passes over what is no request', async () => {
    const { port1, port2 } = new MessageChannel()
    new AppServer({ ...quiet, exchange: answering() }, APP).serve(port2)
    for (const message of [null, 7, 'ask', {}, { ask: 'fetch' }, { ask: 'line' }, { ask: 'socket', target: '/', headers: [['a']], protocols: [] }]) {
      port1.postMessage(message)
    }
    const line = new Line(port1, APP)
    expect(await line.alive()).toBe(true)
    line.close()
  })
})

describe('a flow', () => {
  function pair(): [Flow, Flow] {
    const { port1, port2 } = new MessageChannel()
    return [new Flow(port1, () => {}), new Flow(port2, () => {})]
  }

  it('carries bytes both ways, whatever their number', async () => {
    const [here, there] = pair()
    const large = new Uint8Array(3 * WINDOW + 7).map((_, i) => i)
    void here.send(new Blob([large]).stream())
    void there.send(new Response('back').body)
    const arrived = new Uint8Array(await new Response(there.incoming).arrayBuffer())
    expect(arrived.length).toBe(large.length)
    expect(arrived.every((byte, i) => byte === large[i])).toBe(true)
    expect(await text(here.incoming)).toBe('back')
  })

  it('sends no more than who reads has room for', async () => {
    const [here, there] = pair()
    let read = 0
    const endless = new ReadableStream<Uint8Array>({
      pull(controller) {
        read += 1000
        controller.enqueue(new Uint8Array(1000))
      },
    })
    void here.send(endless)
    await new Promise((resolve) => setTimeout(resolve, 200))
    expect(read).toBeGreaterThan(WINDOW / 2)
    expect(read).toBeLessThan(WINDOW + 10_000)
    const reader = there.incoming.getReader()
    await reader.read()
    await reader.cancel()
    there.abort('enough')
  })

  it('closes its port when it is over, also when an answer was not read to its end', async () => {
    for (const end of ['read', 'cancelled'] as const) {
      const { port1, port2 } = new MessageChannel()
      const [here, there] = [new Flow(port1, () => {}), new Flow(port2, () => {})]
      const closed = new Promise((resolve) => port1.addEventListener('close', resolve))
      void here.send(new Blob([new Uint8Array(end === 'read' ? WINDOW : 3 * WINDOW)]).stream())
      void there.send(null)
      await (end === 'read' ? new Response(there.incoming).arrayBuffer() : there.incoming.cancel())
      await closed
    }
  })

  it('reads nothing of what it has to send when the other side was done before', async () => {
    const [here, there] = pair()
    there.abort('not wanted')
    await new Promise((resolve) => setTimeout(resolve, 20))
    let isCancelled = false
    await here.send(new ReadableStream({ cancel: () => void (isCancelled = true) }))
    expect(isCancelled).toBe(true)
  })

  it('is sent nothing before somebody reads, when it is not to be ahead', async () => {
    const { port1, port2 } = new MessageChannel()
    const [here, there] = [new Flow(port1, () => {}), new Flow(port2, () => {}, () => {}, false)]
    let begun = false
    const large = new Uint8Array(2 * WINDOW)
    port2.addEventListener('message', ({ data }) => (begun ||= data.flow === 'chunk'))
    void here.send(new Blob([large]).stream())
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(begun).toBe(false)
    expect((await new Response(there.incoming).arrayBuffer()).byteLength).toBe(2 * WINDOW)
    there.abort('over')
  })

  it('breaks off on one side when the other does, or sends more than it may', async () => {
    const [here, there] = pair()
    const broken = new ReadableStream<Uint8Array>({
      pull: (controller) => controller.error(new Error('the disk is gone')),
    })
    void here.send(broken)
    await expect(text(there.incoming)).rejects.toThrow('the disk is gone')
    here.abort('over')

    const { port1, port2 } = new MessageChannel()
    const flow = new Flow(port2, () => {})
    port1.start()
    port1.postMessage({ flow: 'chunk', bytes: new Uint8Array(WINDOW + 1) })
    await expect(text(flow.incoming)).rejects.toThrow('more than was granted')
    port1.close()
  })
})
