import { describe, expect, it, onTestFinished } from 'vitest'
import type { SocketAsk, SocketTold } from '../src/protocol'
import type { AppSocket } from '../src/serve'
import { AppServer, MAX_REQUESTS, MAX_WAITING } from '../src/serve'

const APP = { service: 'shop/web', port: 8080 }

/** A WebSocket that takes nothing away: what is sent stays in it, as it does when the way is lost. */
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

/** A WebSocket of an app that is open: the app's end of it, what that was told, and the mesh's end. */
async function connected(): Promise<{ app: MessagePort; told: SocketTold[]; socket: StuckSocket }> {
  const socket = new StuckSocket()
  const exchange = (): never => expect.fail('not here')
  const mesh = { state: { state: 'live' }, claims: { aud: 'c' }, onState: () => () => {}, exchange, socket: () => socket }
  const server = new AppServer(mesh, APP)
  const [line, app] = [new MessageChannel(), new MessageChannel()]
  server.serve(line.port2)
  const told: SocketTold[] = []
  app.port1.onmessage = ({ data }: MessageEvent<SocketTold>) => told.push(data)
  onTestFinished(() => {
    app.port1.close()
    line.port1.close()
    server.close()
  })
  line.port1.postMessage({ ask: 'socket', target: '/', headers: [], protocols: [] }, [app.port2])
  await delivered()
  socket.open()
  await delivered()
  return { app: app.port1, told, socket }
}

/** What was posted before has arrived. */
const delivered = (): Promise<void> => new Promise((resolve) => void setTimeout(resolve, 20))

const say = async (app: MessagePort, ask: SocketAsk): Promise<void> => {
  app.postMessage(ask)
  await delivered()
}

describe('a WebSocket of an app', () => {
  it('that has closed says nothing more', async () => {
    const { app, told, socket } = await connected()
    await say(app, { send: 'never taken' })
    socket.close()
    socket.dispatchEvent(new Event('drain'))
    await delivered()
    expect(told.map((it) => it.socket)).toEqual(['open', 'closed'])
  })

  it('takes no message that crosses its close', async () => {
    const { app, socket } = await connected()
    socket.close()
    await say(app, { send: 'too late' })
    expect(socket.bufferedAmount).toBe(0)
  })

  it('says what was sent as soon as it is on its way, message by message', async () => {
    const { app, told, socket } = await connected()
    await say(app, { send: 'four' })
    await say(app, { send: 'grün' })
    expect(told).toHaveLength(1)
    socket.dispatchEvent(new Event('drain'))
    await delivered()
    expect(told.slice(1)).toEqual([{ socket: 'sent', bytes: 4 }])
  })

  it('ends as one that was sent too much, when a message is too large', async () => {
    const { app, told, socket } = await connected()
    socket.send = () => {
      throw new Error('too large')
    }
    await say(app, { send: 'x' })
    expect(told.slice(1)).toEqual([{ socket: 'closed', code: 1009, reason: 'too large', clean: false }])
  })
})

describe('requests of an app', () => {
  it('that are given up before their turn make room for others', async () => {
    const begun: string[] = []
    const exchange = (request: { target: string }, _: unknown, options?: { signal?: AbortSignal }): Promise<never> => {
      begun.push(request.target)
      return new Promise((_resolve, reject) => options?.signal?.addEventListener('abort', () => reject(new Error('given up'))))
    }
    const socket = (): never => expect.fail('not here')
    const server = new AppServer({ state: { state: 'live' }, claims: { aud: 'c' }, onState: () => () => {}, exchange, socket }, APP)
    const line = new MessageChannel()
    server.serve(line.port2)
    const ports: MessagePort[] = []
    onTestFinished(() => {
      line.port1.close()
      for (const port of ports) port.close()
      server.close()
    })
    const ask = (target: string): MessagePort => {
      const { port1, port2 } = new MessageChannel()
      ports.push(port1)
      line.port1.postMessage({ ask: 'fetch', method: 'GET', target, headers: [], body: false }, [port2])
      return port1
    }
    const stuck = Array.from({ length: MAX_REQUESTS }, (_, i) => ask(`/stuck/${i}`))
    const given = Array.from({ length: MAX_WAITING }, (_, i) => ask(`/given/${i}`))
    await delivered()
    for (const port of given) port.close()
    await delivered()
    ask('/wanted')
    await delivered()
    stuck[0]?.close()
    await expect.poll(() => begun.at(-1)).toBe('/wanted')
    expect(begun).toHaveLength(MAX_REQUESTS + 1)
  })
})
