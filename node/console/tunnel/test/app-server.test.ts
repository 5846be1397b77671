import { describe, expect, it, onTestFinished, vi } from 'vitest'
import type { SocketCommand, SocketEvent } from '../src/protocol'
import type { AppSocket } from '../src/app-server'
import { AppServer, MAX_REQUESTS, MAX_QUEUED } from '../src/app-server'

const APP = { service: 'shop/web', port: 8080 }

/** A WebSocket that never sends: its messages stay buffered, as on a lost connection. */
class StuckSocket extends EventTarget implements AppSocket {
  readonly protocol = ''
  bufferedAmount = 0
  binaryType: 'blob' | 'arraybuffer' = 'blob'
  onSend: () => void = () => {}

  open(): void {
    this.dispatchEvent(new Event('open'))
  }

  send(data: string | ArrayBuffer): void {
    this.onSend()
    this.bufferedAmount += typeof data === 'string' ? data.length : data.byteLength
  }

  close(): void {
    this.dispatchEvent(Object.assign(new Event('close'), { code: 1006, reason: '', wasClean: false }))
  }
}

interface Connected {
  app: MessagePort
  /** Returns the events that the server has posted to the app. */
  events(): SocketEvent[]
  /** The mesh's socket. */
  socket: StuckSocket
}

/** Opens a WebSocket of an app. */
async function connected(): Promise<Connected> {
  const socket = new StuckSocket()
  const posted = spyOnPosts()
  const events = (): SocketEvent[] => posted().filter((it): it is SocketEvent => typeof (it as SocketEvent).socket === 'string')
  const exchange = (): never => expect.fail('unexpected call')
  let onRequested = (): void => {}
  const requested = new Promise<void>((resolve) => (onRequested = resolve))
  const open = (): StuckSocket => {
    onRequested()
    return socket
  }
  const mesh = { state: { state: 'live' }, claims: { aud: 'c' }, onState: () => () => {}, exchange, socket: open }
  const server = new AppServer(mesh, APP)
  const [channel, app] = [new MessageChannel(), new MessageChannel()]
  server.serve(channel.port2)
  onTestFinished(() => {
    app.port1.close()
    channel.port1.close()
    server.close()
  })
  channel.port1.postMessage({ op: 'socket', target: '/', headers: [], protocols: [] }, [app.port2])
  await requested
  const opened = nextMessage(app.port1)
  socket.open()
  expect(await opened).toMatchObject({ socket: 'open' })
  return { app: app.port1, events, socket }
}

/** Records what is posted on any port until the test ends, including what has not arrived yet. */
function spyOnPosts(): () => unknown[] {
  const post = vi.spyOn(MessagePort.prototype, 'postMessage')
  onTestFinished(() => post.mockRestore())
  return () => post.mock.calls.map(([message]) => message as unknown)
}

function nextMessage(port: MessagePort): Promise<unknown> {
  const message = new Promise((resolve) => port.addEventListener('message', (it) => resolve(it.data), { once: true }))
  port.start()
  return message
}

/** Waits until the server has handled the calls on a channel. */
const handled = async (port: MessagePort): Promise<void> => {
  const pong = nextMessage(port)
  port.postMessage({ op: 'ping' })
  await pong
}

/** Posts a command of the app, and waits until the mesh's socket is told to send it. */
const post = async (app: MessagePort, socket: StuckSocket, command: SocketCommand): Promise<void> => {
  const sent = new Promise<void>((resolve) => (socket.onSend = resolve))
  app.postMessage(command)
  await sent
}

describe('a WebSocket of an app', () => {
  it('that is closed posts no more events', async () => {
    const { app, events, socket } = await connected()
    await post(app, socket, { send: 'never sent' })
    socket.close()
    socket.dispatchEvent(new Event('drain'))
    expect(events().map((it) => it.socket)).toEqual(['open', 'closed'])
  })

  it('ignores a message that crosses its close', async () => {
    const { app, socket } = await connected()
    socket.close()
    app.postMessage({ send: 'too late' })
    // The server closes the mesh's socket again when it sees that the port was closed, after the message.
    const closed = new Promise((resolve) => socket.addEventListener('close', resolve))
    app.close()
    await closed
    expect(socket.bufferedAmount).toBe(0)
  })

  it('reports each message that has left', async () => {
    const { app, events, socket } = await connected()
    await post(app, socket, { send: 'four' })
    await post(app, socket, { send: 'grün' })
    expect(events()).toHaveLength(1)
    socket.dispatchEvent(new Event('drain'))
    expect(events().slice(1)).toEqual([{ socket: 'sent', bytes: 4 }])
  })

  it('closes with code 1009 after a message that is too large', async () => {
    const { app, events, socket } = await connected()
    socket.send = () => {
      throw new Error('too large')
    }
    const event = nextMessage(app)
    app.postMessage({ send: 'x' })
    await event
    expect(events().slice(1)).toEqual([{ socket: 'closed', code: 1009, reason: 'too large', clean: false }])
  })
})

describe('requests of an app', () => {
  it('that are aborted while queued make room for others', async () => {
    const started: string[] = []
    let onNext = (): void => {}
    const nextStarted = new Promise<void>((resolve) => (onNext = resolve))
    const posted = spyOnPosts()
    const exchange = (request: { target: string }, _: unknown, options?: { signal?: AbortSignal }): Promise<never> => {
      started.push(request.target)
      if (request.target === '/next') onNext()
      return new Promise((_resolve, reject) => options?.signal?.addEventListener('abort', () => reject(new Error('aborted'))))
    }
    const socket = (): never => expect.fail('unexpected call')
    const server = new AppServer({ state: { state: 'live' }, claims: { aud: 'c' }, onState: () => () => {}, exchange, socket }, APP)
    const channel = new MessageChannel()
    server.serve(channel.port2)
    const ports: MessagePort[] = []
    onTestFinished(() => {
      channel.port1.close()
      for (const port of ports) port.close()
      server.close()
    })
    const rejected = (): number => posted().filter((it) => (it as { reply?: string }).reply === 'error').length
    const request = (target: string): MessagePort => {
      const { port1, port2 } = new MessageChannel()
      ports.push(port1)
      channel.port1.postMessage({ op: 'fetch', method: 'GET', target, headers: [], body: false }, [port2])
      return port1
    }
    const stuck = Array.from({ length: MAX_REQUESTS }, (_, i) => request(`/stuck/${i}`))
    const aborted = Array.from({ length: MAX_QUEUED }, (_, i) => request(`/aborted/${i}`))
    await handled(channel.port1)
    for (const port of aborted) port.close()
    // The queue takes as many requests again once all of the aborted ones have left it.
    for (let missing = MAX_QUEUED; missing > 0; ) {
      const before = rejected()
      for (let i = 0; i < missing; i++) request('/next')
      await handled(channel.port1)
      missing = rejected() - before
    }
    stuck[0]?.close()
    await nextStarted
    expect(started).toHaveLength(MAX_REQUESTS + 1)
  })
})
