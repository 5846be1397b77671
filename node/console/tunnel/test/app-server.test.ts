import { describe, expect, it, onTestFinished } from 'vitest'
import type { RpcReply, SocketCommand, SocketEvent } from '../src/protocol'
import type { AppSocket } from '../src/app-server'
import { AppServer, MAX_REQUESTS, MAX_QUEUED } from '../src/app-server'

const APP = { service: 'shop/web', port: 8080 }

/** A WebSocket that never sends: its messages stay buffered, as on a lost connection. */
class StuckSocket extends EventTarget implements AppSocket {
  readonly protocol = ''
  bufferedAmount = 0
  binaryType: 'blob' | 'arraybuffer' = 'blob'

  open(): void {
    this.dispatchEvent(new Event('open'))
  }

  send(data: string | ArrayBuffer): void {
    this.bufferedAmount += typeof data === 'string' ? data.length : data.byteLength
  }

  close(): void {
    this.dispatchEvent(Object.assign(new Event('close'), { code: 1006, reason: '', wasClean: false }))
  }
}

/** Opens a WebSocket of an app; returns the app's port, the events that it got, and the mesh's socket. */
async function connected(): Promise<{ app: MessagePort; events: SocketEvent[]; socket: StuckSocket }> {
  const socket = new StuckSocket()
  const exchange = (): never => expect.fail('unexpected call')
  const mesh = { state: { state: 'live' }, claims: { aud: 'c' }, onState: () => () => {}, exchange, socket: () => socket }
  const server = new AppServer(mesh, APP)
  const [channel, app] = [new MessageChannel(), new MessageChannel()]
  server.serve(channel.port2)
  const events: SocketEvent[] = []
  app.port1.onmessage = ({ data }: MessageEvent<SocketEvent>) => events.push(data)
  onTestFinished(() => {
    app.port1.close()
    channel.port1.close()
    server.close()
  })
  channel.port1.postMessage({ op: 'socket', target: '/', headers: [], protocols: [] }, [app.port2])
  await delivered()
  socket.open()
  await delivered()
  return { app: app.port1, events, socket }
}

/** Waits until messages that were posted before have arrived. */
const delivered = (): Promise<void> => new Promise((resolve) => void setTimeout(resolve, 20))

/** Waits until the server has handled the calls on a channel and its replies have arrived. */
const handled = async (port: MessagePort): Promise<void> => {
  const pong = new Promise((resolve) => port.addEventListener('message', resolve, { once: true }))
  port.start()
  port.postMessage({ op: 'ping' })
  await pong
  await delivered()
}

const post = async (app: MessagePort, command: SocketCommand): Promise<void> => {
  app.postMessage(command)
  await delivered()
}

describe('a WebSocket of an app', () => {
  it('that is closed posts no more events', async () => {
    const { app, events, socket } = await connected()
    await post(app, { send: 'never sent' })
    socket.close()
    socket.dispatchEvent(new Event('drain'))
    await delivered()
    expect(events.map((it) => it.socket)).toEqual(['open', 'closed'])
  })

  it('ignores a message that crosses its close', async () => {
    const { app, socket } = await connected()
    socket.close()
    await post(app, { send: 'too late' })
    expect(socket.bufferedAmount).toBe(0)
  })

  it('reports each message that has left', async () => {
    const { app, events, socket } = await connected()
    await post(app, { send: 'four' })
    await post(app, { send: 'grün' })
    expect(events).toHaveLength(1)
    socket.dispatchEvent(new Event('drain'))
    await delivered()
    expect(events.slice(1)).toEqual([{ socket: 'sent', bytes: 4 }])
  })

  it('closes with code 1009 after a message that is too large', async () => {
    const { app, events, socket } = await connected()
    socket.send = () => {
      throw new Error('too large')
    }
    await post(app, { send: 'x' })
    expect(events.slice(1)).toEqual([{ socket: 'closed', code: 1009, reason: 'too large', clean: false }])
  })
})

describe('requests of an app', () => {
  it('that are aborted while queued make room for others', async () => {
    const started: string[] = []
    const exchange = (request: { target: string }, _: unknown, options?: { signal?: AbortSignal }): Promise<never> => {
      started.push(request.target)
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
    let rejected = 0
    const request = (target: string): MessagePort => {
      const { port1, port2 } = new MessageChannel()
      port1.onmessage = ({ data }: MessageEvent<RpcReply | object>) => {
        if ('reply' in data && data.reply === 'error') rejected += 1
      }
      ports.push(port1)
      channel.port1.postMessage({ op: 'fetch', method: 'GET', target, headers: [], body: false }, [port2])
      return port1
    }
    const stuck = Array.from({ length: MAX_REQUESTS }, (_, i) => request(`/stuck/${i}`))
    const aborted = Array.from({ length: MAX_QUEUED }, (_, i) => request(`/aborted/${i}`))
    await delivered()
    for (const port of aborted) port.close()
    // The queue takes as many requests again once all of the aborted ones have left it.
    for (let missing = MAX_QUEUED; missing > 0; missing = rejected) {
      rejected = 0
      for (let i = 0; i < missing; i++) request('/next')
      await handled(channel.port1)
    }
    stuck[0]?.close()
    await expect.poll(() => started.at(-1)).toBe('/next')
    expect(started).toHaveLength(MAX_REQUESTS + 1)
  })
})
