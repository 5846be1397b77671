import './polyfills.js'

import { streamPair } from '@libp2p/utils'
import { describe, expect, it, vi } from 'vitest'

import { MeshError } from '../src/api.js'
import { Mux } from '../src/mux.js'
import { muxPair } from './mux-pair.js'

/** Returns a mux with fake timers whose peer sends nothing. */
async function silentMux() {
  const pair = streamPair()
  await vi.advanceTimersByTimeAsync(10)
  const [own, silent] = await pair
  silent.addEventListener('message', () => {})
  const mux = new Mux(own)
  const [stalled, over] = [vi.fn(), vi.fn()]
  mux.onStalled = stalled
  void mux.closed.then(over)
  return { silent, stalled, over }
}

describe('Mux', () => {
  it('opens at most 200 streams, and the next waits until one is closed', async () => {
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

  it('blocks the sender of a stream that is not read, while other streams continue', async () => {
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
    for (let i = 0; i < 200; i++) await other.send(piece)
    const before = taken
    for (let i = 0; i < 200; i++) await other.send(piece)
    expect(taken).toBe(before)
    mux.end(new MeshError('lost', 'the test is over'))
  })

  it('measures the round-trip time', async () => {
    const { mux } = await muxPair(async () => {})
    const rtt = await new Promise<number>((resolve) => (mux.onRtt = resolve))
    expect(rtt).toBeGreaterThan(0)
    expect(mux.rttMs).toBe(rtt)
    mux.end(new MeshError('lost', 'the test is over'))
  })

  it('is stalled after a second without bytes, and closed after six', async () => {
    vi.useFakeTimers()
    try {
      const { silent, stalled, over } = await silentMux()
      await vi.advanceTimersByTimeAsync(900)
      expect(stalled).not.toHaveBeenCalled()
      await vi.advanceTimersByTimeAsync(400)
      expect(stalled).toHaveBeenLastCalledWith(true)
      silent.send(Uint8Array.of(0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9))
      await vi.advanceTimersByTimeAsync(50)
      expect(stalled).toHaveBeenLastCalledWith(false)
      await vi.advanceTimersByTimeAsync(5900)
      expect(over).not.toHaveBeenCalled()
      await vi.advanceTimersByTimeAsync(500)
      expect(over).toHaveBeenCalledExactlyOnceWith(expect.objectContaining({ code: 'lost', message: 'the node stopped answering' }))
    } finally {
      vi.useRealTimers()
    }
  })

  it('detects a silent node in a background page, whose timers run once a second', async () => {
    vi.useFakeTimers()
    const every = globalThis.setInterval
    vi.stubGlobal('setInterval', (look: () => void) => every(look, 1001))
    try {
      const { stalled, over } = await silentMux()
      await vi.advanceTimersByTimeAsync(2100)
      expect(stalled).toHaveBeenCalledExactlyOnceWith(true)
      await vi.advanceTimersByTimeAsync(5000)
      expect(over).toHaveBeenCalledExactlyOnceWith(expect.objectContaining({ code: 'lost' }))
    } finally {
      vi.unstubAllGlobals()
      vi.useRealTimers()
    }
  })

  it('ends with the connection', async () => {
    const { mux, outer } = await muxPair(async () => {})
    outer.abort(new Error('broken'))
    expect(await mux.closed).toMatchObject({ code: 'lost' })
  })
})
