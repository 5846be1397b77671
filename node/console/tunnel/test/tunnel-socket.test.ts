import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest'
import type { SocketCommand, SocketEvent } from '../src/protocol'
import { TunnelSocket } from '../src/tunnel-socket'

const MB = 1_000_000
const listening = new Set<unknown>()

beforeEach(() => {
  vi.stubGlobal('addEventListener', (_: string, listener: unknown) => listening.add(listener))
  vi.stubGlobal('removeEventListener', (_: string, listener: unknown) => listening.delete(listener))
  // Not in every supported version of Node.js.
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

/** Waits for the next task: until then the socket posts all that it can, because its queue consists of promises alone. */
const nextTask = (): Promise<void> => new Promise((resolve) => void setTimeout(resolve))

interface Opened {
  socket: TunnelSocket
  /** Returns the commands that the socket has posted. */
  commands(): SocketCommand[]
  /** Posts an event of the console. */
  emit(event: SocketEvent): void
}

/** Opens a WebSocket of a page. */
async function opened(): Promise<Opened> {
  let port: MessagePort | undefined
  const socket = new TunnelSocket(new URL('http://app.localhost/ws'), [], (_, given) => (port = given))
  const console_ = port as MessagePort
  const post = vi.spyOn(MessagePort.prototype, 'postMessage')
  const commands = (): SocketCommand[] => post.mock.calls.flatMap(([data], i) => (post.mock.contexts[i] === console_ ? [] : [data as SocketCommand]))
  onTestFinished(() => {
    post.mockRestore()
    console_.close()
  })
  const open = new Promise((resolve) => socket.addEventListener('open', resolve))
  console_.postMessage({ socket: 'open', protocol: '' } satisfies SocketEvent)
  await open
  return { socket, commands, emit: (event) => console_.postMessage(event) }
}

describe('a WebSocket of a page', () => {
  it("buffers what exceeds the console's limit, and the close after it", async () => {
    const { socket, commands, emit } = await opened()
    for (let i = 0; i < 12; i++) socket.send(new Uint8Array(MB))
    socket.close()
    await nextTask()
    expect([commands().length, socket.bufferedAmount]).toEqual([5, 12 * MB])
    emit({ socket: 'sent', bytes: 5 * MB })
    await expect.poll(() => commands().length).toBe(10)
    expect(socket.bufferedAmount).toBe(7 * MB)
    emit({ socket: 'sent', bytes: 5 * MB })
    await expect.poll(() => commands().length).toBe(13)
    expect(commands().at(-1)).toEqual({ close: true })
  })

  it('that is closed removes its listeners from the page', async () => {
    const { socket, commands, emit } = await opened()
    for (let i = 0; i < 12; i++) socket.send(new Uint8Array(MB))
    await nextTask()
    expect(commands()).toHaveLength(5)
    const closed = new Promise((resolve) => socket.addEventListener('close', resolve))
    expect(listening.size).toBe(1)
    emit({ socket: 'closed', code: 1000, reason: '', clean: true })
    expect(await closed).toMatchObject({ code: 1000, wasClean: true })
    expect(listening.size).toBe(0)
  })

  it('fails when a file cannot be read, without sending later messages', async () => {
    const { socket, commands } = await opened()
    const closed = new Promise((resolve) => socket.addEventListener('close', resolve))
    const gone = new Blob(['a file that is gone'])
    gone.arrayBuffer = async () => Promise.reject(new DOMException('gone', 'NotReadableError'))
    socket.send(gone)
    socket.send('more')
    expect(await closed).toMatchObject({ code: 1006, wasClean: false })
    expect(commands()).toEqual([{ close: true }])
  })
})
