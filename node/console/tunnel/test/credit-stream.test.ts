import { describe, expect, it } from 'vitest'
import { CreditStream, WINDOW } from '../src/credit-stream'

const text = async (stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<string> => new Response(stream).text()

describe('CreditStream', () => {
  function pair(): [CreditStream, CreditStream] {
    const { port1, port2 } = new MessageChannel()
    return [new CreditStream(port1, () => {}), new CreditStream(port2, () => {})]
  }

  it('carries more bytes than the window in both directions', async () => {
    const [here, there] = pair()
    const large = new Uint8Array(3 * WINDOW + 7).map((_, i) => i)
    void here.send(new Blob([large]).stream())
    void there.send(new Response('back').body)
    const arrived = new Uint8Array(await new Response(there.incoming).arrayBuffer())
    expect(arrived.length).toBe(large.length)
    expect(arrived.every((byte, i) => byte === large[i])).toBe(true)
    expect(await text(here.incoming)).toBe('back')
  })

  it('sends at most the window while the receiver does not read', async () => {
    const { port1, port2 } = new MessageChannel()
    const [here, there] = [new CreditStream(port1, () => {}), new CreditStream(port2, () => {})]
    let received = 0
    const fullWindow = new Promise<void>((resolve) => {
      port2.addEventListener('message', ({ data }) => {
        if (data.stream === 'chunk') received += data.bytes.byteLength
        if (received >= WINDOW) resolve()
      })
    })
    let read = 0
    const endless = new ReadableStream<Uint8Array>({
      pull(controller) {
        read += 1000
        controller.enqueue(new Uint8Array(1000))
      },
    })
    void here.send(endless)
    await fullWindow
    // Messages arrive in order: a credit that the receiver had granted for the full window would arrive before this.
    void there.send(new Response('back').body)
    expect(await text(here.incoming)).toBe('back')
    expect(read).toBeGreaterThanOrEqual(WINDOW)
    expect(read).toBeLessThan(WINDOW + 10_000)
    const reader = there.incoming.getReader()
    await reader.read()
    await reader.cancel()
  })

  it('closes its port when both directions end, by reading or by cancelling', async () => {
    for (const end of ['read', 'cancelled'] as const) {
      const { port1, port2 } = new MessageChannel()
      const [here, there] = [new CreditStream(port1, () => {}), new CreditStream(port2, () => {})]
      const closed = new Promise((resolve) => port1.addEventListener('close', resolve))
      void here.send(new Blob([new Uint8Array(end === 'read' ? WINDOW : 3 * WINDOW)]).stream())
      void there.send(null)
      await (end === 'read' ? new Response(there.incoming).arrayBuffer() : there.incoming.cancel())
      await closed
    }
  })

  it('does not read the stream to send when the peer has aborted', async () => {
    const { port1, port2 } = new MessageChannel()
    let here: CreditStream | undefined
    const ended = new Promise<void>((resolve) => (here = new CreditStream(port1, () => {}, resolve)))
    new CreditStream(port2, () => {}).abort('aborted')
    await ended
    let isCancelled = false
    await here?.send(new ReadableStream({ cancel: () => void (isCancelled = true) }))
    expect(isCancelled).toBe(true)
  })

  it('receives nothing before it is read without prefetch', async () => {
    const { port1, port2 } = new MessageChannel()
    let onMarker = (): void => {}
    const marker = new Promise<void>((resolve) => (onMarker = resolve))
    const [here, there] = [new CreditStream(port1, () => {}), new CreditStream(port2, onMarker, () => {}, false)]
    let hasChunk = false
    port2.addEventListener('message', ({ data }) => (hasChunk ||= data.stream === 'chunk'))
    void here.send(new Response(new Uint8Array(2 * WINDOW)).body)
    // A round trip, as messages arrive in order: after `back` there is no credit under way, after the marker no chunk.
    void there.send(new Response('back').body)
    expect(await text(here.incoming)).toBe('back')
    port1.postMessage('marker')
    await marker
    expect(hasChunk).toBe(false)
    expect((await new Response(there.incoming).arrayBuffer()).byteLength).toBe(2 * WINDOW)
  })

  it('fails when the peer fails or exceeds its credit', async () => {
    const [here, there] = pair()
    const broken = new ReadableStream<Uint8Array>({
      pull: (controller) => controller.error(new Error('the disk failed')),
    })
    void here.send(broken)
    await expect(text(there.incoming)).rejects.toThrow('the disk failed')
    here.abort('over')

    const { port1, port2 } = new MessageChannel()
    const stream = new CreditStream(port2, () => {})
    port1.start()
    port1.postMessage({ stream: 'chunk', bytes: new Uint8Array(WINDOW + 1) })
    await expect(text(stream.incoming)).rejects.toThrow('more bytes than its credit')
    port1.close()
  })
})
