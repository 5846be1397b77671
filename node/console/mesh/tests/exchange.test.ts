import './polyfills.js'

import { streamPair } from '@libp2p/utils'
import { afterEach, describe, expect, it } from 'vitest'

import { MeshError } from '../src/api.js'
import { exchange } from '../src/exchange.js'
import { outgoing, responseOf } from '../src/fetch.js'
import type { Frames } from '../src/frames.js'
import { Mux } from '../src/mux.js'
import type { FetchRequest } from '../src/types.js'
import { utf8 } from './bytes.js'
import { muxPair, serveMux } from './mux-pair.js'
import type { Serve } from './mux-pair.js'

let mux: Mux | null = null
afterEach(() => {
  mux?.end(Object.assign(new Error('the test is over'), { code: 'lost' }) as never)
  mux = null
})

const head = { status: 200, headers: [['content-type', 'text/plain']], instance: 'shop/web.1@0', node: 'n' }
const answer = (frames: Frames, more: object = {}) => frames.sendJson({ reply: 'response', value: { ...head, ...more } })
const END_OF_BODY = new Uint8Array()

/** Returns `fetch` to a node that handles requests with `serve`. */
async function fetching(serve: (request: FetchRequest, frames: Frames) => Promise<void>) {
  const pair = await muxPair(async (frames) => serve(await frames.receiveJson<FetchRequest>(), frames))
  mux = pair.mux
  return async (path: string, init: RequestInit = {}) => {
    const { request, body, signal } = await outgoing('shop/web', null, path, init)
    return responseOf(await exchange((signal) => pair.mux.open(signal), request, body, signal), request.method)
  }
}

/** Responds with the request and its body. */
const echo: Parameters<typeof fetching>[0] = async (request, frames) => {
  const pieces: Uint8Array[] = []
  if (request.body) for (let f = await frames.receive(); f?.byteLength; f = await frames.receive()) pieces.push(f)
  await answer(frames, { headers: [['x-sizes', pieces.map((piece) => piece.byteLength).join()]] })
  await frames.send(utf8(JSON.stringify(request)))
  for (const piece of pieces) await frames.send(piece)
  await frames.send(END_OF_BODY)
}

describe('fetch', () => {
  it('requests a path of a service, with headers that pages cannot set', async () => {
    const fetch = await fetching(echo)
    const response = await fetch('/a?b=c#d', { headers: { cookie: 'x=y', 'X-Own': '1' } })
    expect(await response.json()).toEqual({
      op: 'fetch',
      service: 'shop/web',
      port: null,
      method: 'GET',
      target: '/a?b=c',
      headers: [
        ['accept-encoding', 'identity'],
        ['cookie', 'x=y'],
        ['x-own', '1'],
      ],
      body: false,
    })
  })

  it('sends bodies of every type in frames of at most 64 KiB', async () => {
    const fetch = await fetching(echo)
    const large = new Uint8Array(200_000).fill(7)
    for (const [body, type, length] of [
      ['text', 'text/plain;charset=UTF-8', '4'],
      [new URLSearchParams({ a: 'b' }), 'application/x-www-form-urlencoded;charset=UTF-8', '3'],
      [new Blob(['blob'], { type: 'image/png' }), 'image/png', '4'],
      [large, undefined, '200000'],
      [new Blob([large]).stream(), undefined, undefined],
    ] as const) {
      const response = await fetch('/', { method: 'post', body, duplex: 'half' } as RequestInit)
      const sizes = response.headers.get('x-sizes')?.split(',').map(Number) ?? []
      const text = await response.text()
      const asked = JSON.parse(text.slice(0, text.indexOf('}') + 1)) as FetchRequest
      const sent = Object.fromEntries(asked.headers)
      expect([asked.method, asked.body, sent['content-type'], sent['content-length']]).toEqual(['POST', true, type, length])
      expect(Math.max(...sizes)).toBeLessThanOrEqual(65536)
      if (length) expect(sizes.reduce((a, b) => a + b)).toBe(Number(length))
    }
  })

  it('streams the response as it arrives', async () => {
    let more = (): void => {}
    const asked = new Promise<void>((resolve) => (more = resolve))
    const fetch = await fetching(async (_, frames) => {
      await answer(frames)
      await frames.send(utf8('one'))
      await asked
      await frames.send(utf8('two'))
      await frames.send(END_OF_BODY)
    })
    const reader = (await fetch('/')).body?.getReader()
    expect(new TextDecoder().decode((await reader?.read())?.value)).toBe('one')
    more()
    expect(new TextDecoder().decode((await reader?.read())?.value)).toBe('two')
    expect((await reader?.read())?.done).toBe(true)
  })

  it('fails when the response is cut off', async () => {
    const fetch = await fetching(async (_, frames) => {
      await answer(frames)
      await frames.send(utf8('half'))
    })
    const response = await fetch('/')
    await expect(response.text()).rejects.toMatchObject({ code: 'lost', message: expect.stringContaining('cut off') })
  })

  it('fails with failed when the stream ends before the response on an open connection', async () => {
    const endings: Serve[] = [
      async () => {},
      async (frames) => frames.abort(new MeshError('lost', 'the instance is gone')),
      async (frames) => {
        // An incomplete frame at the end of the stream.
        const stream = frames.detach()
        stream.send(Uint8Array.of(0, 0, 1, 0, 123))
        await stream.close()
      },
    ]
    for (const end of endings) {
      const fetch = await fetching((_, frames) => end(frames))
      await expect(fetch('/')).rejects.toMatchObject({ code: 'failed', message: expect.stringContaining('before its response') })
      mux?.end(new MeshError('lost', 'the next one'))
    }
  })

  it('fails with lost when the connection is lost, before and during the response', async () => {
    const serving: ((request: FetchRequest, frames: Frames) => Promise<void>)[] = [
      async () => new Promise(() => {}),
      async (_, frames) => {
        await answer(frames)
        return await new Promise(() => {})
      },
    ]
    for (const serve of serving) {
      let come = (): void => {}
      const here = new Promise<void>((resolve) => (come = resolve))
      const pair = await muxPair(async (frames) => {
        const request = await frames.receiveJson<FetchRequest>()
        const served = serve(request, frames)
        come()
        return await served
      })
      const { request } = await outgoing('web', null, '/', {})
      const whole = exchange((signal) => pair.mux.open(signal), request, null).then(({ body }) => new Response(body).text())
      await here
      pair.outer.abort(new Error('the node is gone'))
      await expect(whole).rejects.toMatchObject({ code: 'lost' })
    }
  })

  it('fails with lost after the buffered bytes when the connection closes while the body is not read', async () => {
    const [own, other] = await streamPair()
    let sent = 0
    serveMux(other, async (frames) => {
      await frames.receive()
      await answer(frames)
      for (let i = 0; i < 100; i++) {
        await frames.send(new Uint8Array(64 * 1024))
        sent += 1
      }
    })
    mux = new Mux(own)
    const { request } = await outgoing('web', null, '/', {})
    const { body } = await exchange((signal) => (mux as Mux).open(signal), request, null)
    await expect.poll(() => sent).toBeGreaterThan(17)
    // Its answer comes after what was sent before on the same connection.
    await exchange((signal) => (mux as Mux).open(signal), request, null)
    // Closes the stream as a closed data channel does.
    const closing = own as unknown as { onTransportClosed(): void }
    closing.onTransportClosed()
    const reader = body.getReader()
    let bytes = 0
    const all = (async () => {
      for (let next = await reader.read(); !next.done; next = await reader.read()) bytes += next.value.byteLength
    })()
    await expect(all).rejects.toMatchObject({ code: 'lost' })
    expect(bytes).toBeGreaterThan(1024 * 1024)
  })

  it('fails with the error of the node', async () => {
    const fetch = await fetching((_, frames) => frames.sendJson({ reply: 'error', value: { code: 'not_found', message: 'no service shop/web' } }))
    await expect(fetch('/')).rejects.toMatchObject({ code: 'refused', message: 'no service shop/web' })
  })

  it('ends the stream at the node when it is aborted, before and during the response', async () => {
    let ended = 0
    const wait: Serve = async (frames) => {
      const whenOver = (): void => void (ended += 1)
      await frames.receive().then(whenOver, whenOver)
    }
    let onUnanswered = (): void => {}
    const unanswered = new Promise<void>((resolve) => (onUnanswered = resolve))
    const fetch = await fetching(async (request, frames) => {
      if (request.target === '/answer') await answer(frames)
      else onUnanswered()
      await wait(frames)
    })
    await expect(fetch('/', { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'aborted' })

    const before = new AbortController()
    const waiting = fetch('/none', { signal: before.signal })
    void unanswered.then(() => before.abort())
    await expect(waiting).rejects.toMatchObject({ code: 'aborted' })

    const within = new AbortController()
    const response = await fetch('/answer', { signal: within.signal })
    within.abort()
    await expect(response.text()).rejects.toMatchObject({ code: 'aborted' })

    await (await fetch('/answer')).body?.cancel()
    await expect.poll(() => ended).toBe(3)
  })

  it('can be aborted while its stream is opened', async () => {
    const { mux: own } = await muxPair(async (frames) => void (await frames.receive()))
    mux = own
    const { request } = await outgoing('web', null, '/', {})
    const stop = new AbortController()
    const answer = exchange((signal) => own.open(signal), request, null, stop.signal)
    stop.abort()
    await expect(answer).rejects.toMatchObject({ code: 'aborted' })
    expect(own.isIdle).toBe(true)
  })

  it('cancels the request body when the response is complete or cancelled', async () => {
    const full = (controller: ReadableStreamDefaultController<Uint8Array>): void => controller.enqueue(new Uint8Array(64 * 1024))
    const waiting = async (): Promise<void> => new Promise(() => {})
    for (const pull of [full, waiting]) {
      const fetch = await fetching(async (_, frames) => {
        await answer(frames)
        await frames.send(END_OF_BODY)
      })
      for (const end of ['read', 'cancelled'] as const) {
        let isCancelled = false
        const body = new ReadableStream({ pull, cancel: () => void (isCancelled = true) })
        const response = await fetch('/', { method: 'POST', body, duplex: 'half' } as RequestInit)
        await (end === 'read' ? response.text() : response.body?.cancel())
        await expect.poll(() => [isCancelled, mux?.isIdle], { message: end }).toEqual([true, true])
      }
      mux?.end(new MeshError('lost', 'the next one'))
    }
  })

  it('has no body for HEAD and for status codes without one', async () => {
    const fetch = await fetching(async (request, frames) => {
      await answer(frames, { status: Number(request.target.slice(1)) })
      await frames.send(END_OF_BODY)
    })
    for (const status of [204, 205, 304]) expect(await fetch(`/${status}`)).toMatchObject({ status, body: null })
    expect(await fetch('/200', { method: 'HEAD' })).toMatchObject({ status: 200, body: null })
    expect(await (await fetch('/404')).text()).toBe('')
    await expect(fetch('/101')).rejects.toMatchObject({ code: 'failed' })
    await expect(fetch('/999')).rejects.toMatchObject({ code: 'failed' })
  })

  it('fails when the request body fails', async () => {
    const fetch = await fetching(echo)
    const body = new ReadableStream({
      pull(controller) {
        controller.error(new Error('the disk failed'))
      },
    })
    await expect(fetch('/', { method: 'POST', body, duplex: 'half' } as RequestInit)).rejects.toMatchObject({
      code: 'failed',
      message: expect.stringContaining('could not be sent'),
    })
  })

  it('receives a large response no faster than it is read', async () => {
    let sent = 0
    const piece = new Uint8Array(64 * 1024)
    const fetch = await fetching(async (_, frames) => {
      await answer(frames)
      for (; sent < 512; sent++) await frames.send(piece)
      await frames.send(END_OF_BODY)
    })
    const response = await fetch('/')
    let before = -1
    // The sender stops by flow control, far from the end.
    await expect.poll(() => before === (before = sent) && sent > 0, { interval: 100, timeout: 5000 }).toBe(true)
    expect(sent).toBeLessThan(128)
    expect((await response.arrayBuffer()).byteLength).toBe(512 * piece.byteLength)
  }, 30_000)
})
