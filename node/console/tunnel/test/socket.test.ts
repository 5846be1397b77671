import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest'
import type { SocketAsk, SocketTold } from '../src/protocol'
import { TunnelSocket } from '../src/socket'

const MB = 1_000_000
const listening = new Set<unknown>()

beforeEach(() => {
  vi.stubGlobal('addEventListener', (_: string, listener: unknown) => listening.add(listener))
  vi.stubGlobal('removeEventListener', (_: string, listener: unknown) => listening.delete(listener))
  // Node.js has it later than browsers.
  if (!('CloseEvent' in globalThis)) {
    vi.stubGlobal('CloseEvent', class extends Event {
      constructor(type: string, init: CloseEventInit) {
        super(type)
        Object.assign(this, init)
      }
    })
  }
})
afterEach(() => {
  listening.clear()
  vi.unstubAllGlobals()
})

/** A WebSocket of a page that is open, what it asked of the console, and the console's word to it. */
async function opened(): Promise<{ socket: TunnelSocket; asked: SocketAsk[]; tell: (told: SocketTold) => void }> {
  let port: MessagePort | undefined
  const socket = new TunnelSocket(new URL('http://app.localhost/ws'), [], (_, given) => (port = given))
  const console_ = port as MessagePort
  const asked: SocketAsk[] = []
  console_.onmessage = ({ data }: MessageEvent<SocketAsk>) => asked.push(data)
  onTestFinished(() => console_.close())
  const open = new Promise((resolve) => socket.addEventListener('open', resolve))
  console_.postMessage({ socket: 'open', protocol: '' } satisfies SocketTold)
  await open
  return { socket, asked, tell: (told) => console_.postMessage(told) }
}

describe('a WebSocket of a page', () => {
  it('keeps what the console has no room for, and its close behind that', async () => {
    const { socket, asked, tell } = await opened()
    for (let i = 0; i < 12; i++) socket.send(new Uint8Array(MB))
    socket.close()
    await expect.poll(() => asked.length).toBe(5)
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect([asked.length, socket.bufferedAmount]).toEqual([5, 12 * MB])
    tell({ socket: 'sent', bytes: 5 * MB })
    await expect.poll(() => asked.length).toBe(10)
    expect(socket.bufferedAmount).toBe(7 * MB)
    tell({ socket: 'sent', bytes: 5 * MB })
    await expect.poll(() => asked.length).toBe(13)
    expect(asked.at(-1)).toEqual({ close: true })
  })

  it('that is over is let go by its page, whatever was left in it', async () => {
    const { socket, asked, tell } = await opened()
    for (let i = 0; i < 12; i++) socket.send(new Uint8Array(MB))
    await expect.poll(() => asked.length).toBe(5)
    const closed = new Promise((resolve) => socket.addEventListener('close', resolve))
    expect(listening.size).toBe(1)
    tell({ socket: 'closed', code: 1000, reason: '', clean: true })
    expect(await closed).toMatchObject({ code: 1000, wasClean: true })
    expect(listening.size).toBe(0)
  })

  it('is over when a file cannot be read, for what comes after would not be what was sent', async () => {
    const { socket, asked } = await opened()
    const closed = new Promise((resolve) => socket.addEventListener('close', resolve))
    const gone = new Blob(['a file that is gone'])
    gone.arrayBuffer = async () => Promise.reject(new DOMException('gone', 'NotReadableError'))
    socket.send(gone)
    socket.send('more')
    expect(await closed).toMatchObject({ code: 1006, wasClean: false })
    await expect.poll(() => asked).toEqual([{ close: true }])
  })
})
