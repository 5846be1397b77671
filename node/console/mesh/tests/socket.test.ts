import './polyfills.js'

import { afterEach, describe, expect, it, vi } from 'vitest'

import { MeshError } from '../src/api.js'
import type { Frames } from '../src/frames.js'
import type { Mux } from '../src/mux.js'
import { Socket } from '../src/socket.js'
import { muxPair } from './mux-pair.js'

let mux: Mux | null = null
afterEach(() => {
  vi.useRealTimers()
  mux?.end(new MeshError('lost', 'the test is over'))
  mux = null
})

const REQUEST = { service: 'shop/web', port: null, target: '/', headers: [], protocols: [] }
const HEAD = { status: 101, headers: [], instance: 'shop/web.1@0', node: 'n' }
const MUCH = 5

/** Opens a WebSocket to a node that handles its frames with `serve`. */
async function opened(serve: (frames: Frames) => Promise<void>): Promise<Socket> {
  const pair = await muxPair(async (frames) => {
    await frames.receive()
    await frames.sendJson({ reply: 'response', value: HEAD })
    await serve(frames)
  })
  mux = pair.mux
  const socket = new Socket((signal) => pair.mux.open(signal), REQUEST)
  await new Promise((resolve) => socket.addEventListener('open', resolve))
  return socket
}

const closing = (socket: Socket): Promise<CloseEvent> =>
  new Promise((resolve) => socket.addEventListener('close', (event) => resolve(event as CloseEvent)))

/** Sends more than a node accepts that reads nothing. */
const fill = (socket: Socket): void => {
  for (let i = 0; i < MUCH; i++) socket.send(new Uint8Array(1_000_000))
}

describe('a WebSocket', () => {
  it('closes when the instance closes it, though that reads nothing more', async () => {
    let end = (): void => {}
    const ended = new Promise<void>((resolve) => (end = resolve))
    const socket = await opened(async (frames) => {
      await ended
      await frames.send(Uint8Array.of(8, 4001 >> 8, 4001 & 0xff))
    })
    const closed = closing(socket)
    fill(socket)
    end()
    expect(await closed).toMatchObject({ code: 4001, wasClean: true })
    await expect.poll(() => mux?.isIdle).toBe(true)
  })

  it('is aborted 60 s after the last progress when the instance does not answer the close', async () => {
    const socket = await opened(() => new Promise(() => {}))
    const closed = closing(socket)
    fill(socket)
    await expect.poll(() => socket.bufferedAmount).toBeLessThan(MUCH * 1_000_000)
    // Fake timers only now: the connection's own timers must keep running.
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    socket.close()
    await vi.advanceTimersByTimeAsync(59_900)
    expect(socket.readyState).toBe(2)
    // A frame may have left during the first period.
    await vi.advanceTimersByTimeAsync(60_200)
    expect(await closed).toMatchObject({ code: 1006, wasClean: false })
    expect(mux?.isIdle).toBe(true)
  })

  it('fails when a message cannot be read', async () => {
    const socket = await opened(async (frames) => void (await frames.receive()))
    const closed = closing(socket)
    const gone = new Blob(['a file that is gone'])
    gone.arrayBuffer = async () => Promise.reject(new DOMException('gone', 'NotReadableError'))
    socket.send(gone)
    expect(await closed).toMatchObject({ code: 1006, reason: 'a message could not be sent' })
  })

  it('sends all messages before its close to a reader that begins after it', async () => {
    let begin = (): void => {}
    const isClosing = new Promise<void>((resolve) => (begin = resolve))
    let bytes = 0
    let code: number | undefined
    const socket = await opened(async (frames) => {
      await isClosing
      for (let frame = await frames.receive(); frame; frame = await frames.receive()) {
        code = frame[0]
        if (code === 8) return frames.send(frame)
        bytes += frame.byteLength - 1
      }
    })
    const closed = closing(socket)
    fill(socket)
    socket.close()
    begin()
    expect(await closed).toMatchObject({ code: 1005, wasClean: true })
    expect([bytes, code]).toEqual([MUCH * 1_000_000, 8])
  })
})
