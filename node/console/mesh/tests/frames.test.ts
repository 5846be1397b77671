import './polyfills.js'

import { streamPair } from '@libp2p/utils'
import { describe, expect, it, vi } from 'vitest'

import { FrameDecoder, Frames, MAX_FRAME, encodeFrame } from '../src/frames.js'
import { cuts, join, utf8 } from './bytes.js'

describe('frames', () => {
  it('are decoded for any division of the bytes', () => {
    const sent = ['', 'a', '{"reply":"ready"}', 'grüß dich']
    const bytes = join(...sent.map((text) => encodeFrame(utf8(text))))
    for (const pieces of cuts(bytes)) {
      const decoder = new FrameDecoder(MAX_FRAME)
      const received: string[] = []
      for (const piece of pieces) {
        decoder.push(piece)
        for (let frame = decoder.next(); frame; frame = decoder.next()) received.push(new TextDecoder().decode(frame))
      }
      expect(received).toEqual(sent)
      expect(decoder.isPartial).toBe(false)
    }
  })

  it('are encoded from several pieces', () => {
    expect(encodeFrame(Uint8Array.of(8), Uint8Array.of(3, 232), utf8('bye'))).toEqual(
      Uint8Array.of(0, 0, 0, 6, 8, 3, 232, ...utf8('bye')),
    )
  })

  it('larger than the limit are rejected by their length', () => {
    const decoder = new FrameDecoder(16)
    decoder.push(Uint8Array.of(0, 0, 0, 17))
    expect(() => decoder.next()).toThrow('17 bytes')
  })
})

describe('frames on a stream', () => {
  it('distinguish the end of the stream from a cut', async () => {
    const [own, other] = await streamPair()
    const frames = new Frames(own)
    other.send(encodeFrame(utf8('"whole"')))
    expect(await frames.receiveJson()).toBe('whole')
    await other.close()
    expect(await frames.receive()).toBeNull()

    const [own2, other2] = await streamPair()
    const cut = new Frames(own2)
    other2.send(encodeFrame(utf8('"whole"')).slice(0, 6))
    await other2.close()
    await expect(cut.receive()).rejects.toMatchObject({ code: 'lost' })
  })

  it('fail pending calls when the stream breaks', async () => {
    const [own, other] = await streamPair()
    const frames = new Frames(own)
    const waiting = frames.receive()
    other.abort(new Error('broken'))
    await expect(waiting).rejects.toMatchObject({ code: 'lost' })
    await expect(frames.send(utf8('more'))).rejects.toMatchObject({ code: 'lost' })
  })

  it('pause the sender while they are not read', async () => {
    const [own, other] = await streamPair()
    const frames = new Frames(own)
    const piece = new Uint8Array(256 * 1024)
    for (let i = 0; i < 5; i++) other.send(encodeFrame(piece))
    await expect.poll(() => own.readStatus).toBe('paused')
    for (let i = 0; i < 5; i++) expect((await frames.receive())?.byteLength).toBe(piece.byteLength)
    expect(own.readStatus).toBe('readable')
  })

  it('pause the sender again when the stream has buffered as much meanwhile', async () => {
    const [own, other] = await streamPair()
    const last = vi.fn()
    Object.assign(own, { sendPause: () => last('pause'), sendResume: () => last('resume') })
    const frames = new Frames(own)
    const piece = new Uint8Array(256 * 1024)
    for (let i = 0; i < 4; i++) other.send(encodeFrame(piece))
    await expect.poll(() => own.readStatus).toBe('paused')
    for (let i = 4; i < 10; i++) other.send(encodeFrame(piece))
    await expect.poll(() => own.readBufferLength).toBeGreaterThan(5 * piece.byteLength)
    for (let i = 0; i < 4; i++) await frames.receive()
    expect(own.readStatus).toBe('paused')
    expect(last.mock.calls.flat()).toEqual(['pause', 'resume', 'pause'])
    for (let i = 4; i < 10; i++) expect((await frames.receive())?.byteLength).toBe(piece.byteLength)
    expect(last).toHaveBeenLastCalledWith('resume')
  })

  it('leave the bytes after the last frame in the stream', async () => {
    const [own, other] = await streamPair()
    const frames = new Frames(own)
    other.send(join(encodeFrame(utf8('"ready"')), Uint8Array.of(0, 2, 0, 1)))
    expect(await frames.receiveJson()).toBe('ready')
    const stream = frames.detach()
    const rest = await new Promise<Uint8Array>((resolve) => {
      stream.addEventListener('message', ({ data }) => resolve(data.subarray()))
    })
    expect(rest).toEqual(Uint8Array.of(0, 2, 0, 1))
  })
})
