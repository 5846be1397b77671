import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest'
import type { SocketAsk, SocketTold } from '../src/protocol'
import type { AppSocket } from '../src/serve'
import { AppServer } from '../src/serve'

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

/** The clock's own, whatever the tests make of it. */
const { setTimeout: later } = globalThis
/** What was posted before has arrived. */
const delivered = (): Promise<void> => new Promise((resolve) => void later(resolve, 20))

const say = async (app: MessagePort, ask: SocketAsk): Promise<void> => {
  app.postMessage(ask)
  await delivered()
}

describe('a WebSocket of an app', () => {
  // Only what waits for a WebSocket to be empty.
  beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] }))
  afterEach(() => void vi.useRealTimers())

  it('that has closed is not looked at any more, whatever was left in it', async () => {
    const { app, told, socket } = await connected()
    await say(app, { send: 'never taken' })
    expect(vi.getTimerCount()).toBe(1)
    socket.close()
    await vi.advanceTimersByTimeAsync(100)
    expect(vi.getTimerCount()).toBe(0)
    await delivered()
    expect(told.map((it) => it.socket)).toEqual(['open', 'closed'])
  })

  it('takes no message that crosses its close', async () => {
    const { app, socket } = await connected()
    socket.close()
    await say(app, { send: 'too late' })
    expect(socket.bufferedAmount).toBe(0)
    expect(vi.getTimerCount()).toBe(0)
  })

  it('says what was sent as soon as it is on its way', async () => {
    const { app, told, socket } = await connected()
    await say(app, { send: 'four' })
    await vi.advanceTimersByTimeAsync(100)
    expect(told).toHaveLength(1)
    socket.bufferedAmount = 0
    await vi.advanceTimersByTimeAsync(100)
    await delivered()
    expect(told.at(-1)).toEqual({ socket: 'sent', bytes: 4 })
  })
})
