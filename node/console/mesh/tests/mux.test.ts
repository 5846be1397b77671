import './polyfills.js'

import { streamPair } from '@libp2p/utils'
import { describe, expect, it, vi } from 'vitest'

import { MeshError } from '../src/api.js'
import { Mux } from '../src/mux.js'
import { muxPair } from './mux-pair.js'

/** Many streams on a connection whose other side says nothing by itself, by the clock of the test. */
async function silentMux() {
  const pair = streamPair()
  await vi.advanceTimersByTimeAsync(10)
  const [own, silent] = await pair
  silent.addEventListener('message', () => {})
  const mux = new Mux(own)
  const [quiet, over] = [vi.fn(), vi.fn()]
  mux.onStalled = quiet
  void mux.closed.then(over)
  return { silent, quiet, over }
}

describe('many streams on one', () => {
  it('are at most 200: the next waits until one is over', async () => {
    let opened = 0
    const { mux } = await muxPair(async (frames) => {
      opened += 1
      await frames.receive()
    })
    const first = await Promise.all(Array.from({ length: 200 }, () => mux.open()))
    const more = mux.open()
    const given = mux.open(AbortSignal.timeout(50))
    await expect(given).rejects.toMatchObject({ code: 'aborted' })
    await expect.poll(() => opened).toBe(200)
    first[0]?.finish()
    await (await more).sendJson('here')
    await expect.poll(() => opened).toBe(201)
    mux.end(new MeshError('lost', 'the test is over'))
    await expect(mux.open()).rejects.toMatchObject({ code: 'lost' })
  })

  it('have a sender wait whose node reads nothing, though there is room for others', async () => {
    const { mux } = await muxPair(async (frames) => {
      const { reads } = await frames.receiveJson<{ reads: boolean }>()
      if (!reads) return new Promise(() => {})
      while (await frames.receive());
    })
    const piece = new Uint8Array(64 * 1024)
    const [stuck, other] = [await mux.open(), await mux.open()]
    await stuck.sendJson({ reads: false })
    await other.sendJson({ reads: true })
    let taken = 0
    const sending = (async () => {
      for (;;) {
        await stuck.send(piece)
        taken += 1
      }
    })()
    sending.catch(() => {})
    await expect.poll(() => taken).toBeGreaterThan(10)
    await new Promise((resolve) => setTimeout(resolve, 100))
    const before = taken
    for (let i = 0; i < 200; i++) await other.send(piece)
    expect(taken).toBe(before)
    mux.end(new MeshError('lost', 'the test is over'))
  })

  it('tell the round trip', async () => {
    const { mux } = await muxPair(async () => {})
    const rtt = await new Promise<number>((resolve) => (mux.onRtt = resolve))
    expect(rtt).toBeGreaterThan(0)
    expect(mux.rttMs).toBe(rtt)
    mux.end(new MeshError('lost', 'the test is over'))
  })

  it('are quiet when the node says nothing for a second, and over after six', async () => {
    vi.useFakeTimers()
    try {
      const { silent, quiet, over } = await silentMux()
      await vi.advanceTimersByTimeAsync(900)
      expect(quiet).not.toHaveBeenCalled()
      await vi.advanceTimersByTimeAsync(400)
      expect(quiet).toHaveBeenLastCalledWith(true)
      silent.send(Uint8Array.of(0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9))
      await vi.advanceTimersByTimeAsync(50)
      expect(quiet).toHaveBeenLastCalledWith(false)
      await vi.advanceTimersByTimeAsync(5900)
      expect(over).not.toHaveBeenCalled()
      await vi.advanceTimersByTimeAsync(500)
      expect(over).toHaveBeenCalledExactlyOnceWith(expect.objectContaining({ code: 'lost', message: 'the node does not answer any more' }))
    } finally {
      vi.useRealTimers()
    }
  })

  it('notice a silent node in a page in the background, where browsers have timers run once a second', async () => {
    vi.useFakeTimers()
    const every = globalThis.setInterval
    vi.stubGlobal('setInterval', (look: () => void) => every(look, 1001))
    try {
      const { quiet, over } = await silentMux()
      await vi.advanceTimersByTimeAsync(2100)
      expect(quiet).toHaveBeenCalledExactlyOnceWith(true)
      await vi.advanceTimersByTimeAsync(5000)
      expect(over).toHaveBeenCalledExactlyOnceWith(expect.objectContaining({ code: 'lost' }))
    } finally {
      vi.unstubAllGlobals()
      vi.useRealTimers()
    }
  })

  it('are over with the connection', async () => {
    const { mux, outer } = await muxPair(async () => {})
    outer.abort(new Error('broken'))
    expect(await mux.closed).toMatchObject({ code: 'lost' })
  })
})
