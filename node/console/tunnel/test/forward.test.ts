import { beforeEach, expect, it, vi } from 'vitest'
import type { Cookies } from '../src/cookies'
import type { ChannelResponse, RpcChannel } from '../src/rpc-channel'
import { forward } from '../src/worker/forward'

const OWN = 'http://web.localhost:4779'
const ELSEWHERE = 'https://evil.example'

beforeEach(() => {
  vi.stubGlobal('self', { location: new URL(OWN) })
  vi.stubGlobal('navigator', { userAgent: 'a browser', languages: ['en'] })
})

const noCookies: Pick<Cookies, 'header' | 'setFromResponse'> = { header: async () => '', setFromResponse: async () => {} }

/** Returns what the browser gets for a response of an app. */
async function passedOn(got: Partial<ChannelResponse>, method = 'GET'): Promise<Response> {
  const body = new Response('as it came').body as ChannelResponse['body']
  const channel = { request: async (): Promise<ChannelResponse> => ({ status: 200, headers: [], body, ...got }) } as unknown as RpcChannel
  const request = new Request(`${OWN}/a`, { method })
  return forward(request, new URL(request.url), channel, noCookies as Cookies, request.signal)
}

/** Returns the cookie context and the `sec-fetch-site` header of a navigation that the user reloads. */
async function reloaded(how: { method?: string; referrer?: string; origin?: string }): Promise<[cookies: unknown, from: unknown]> {
  const { method = 'GET', referrer = '', origin } = how
  const request = Object.defineProperties(new Request(`${OWN}/a`, { method }), {
    mode: { value: 'navigate' },
    referrer: { value: referrer },
    headers: { value: new Headers(origin === undefined ? {} : { origin }) },
    isReloadNavigation: { value: true },
  })
  const send = vi.fn<RpcChannel['request']>(async () => ({ status: 204, headers: [], body: new ReadableStream() }))
  const header = vi.fn<Cookies['header']>(async () => '')
  const cookies: Pick<Cookies, 'header' | 'setFromResponse'> = { header, setFromResponse: async () => {} }
  await forward(request, new URL(request.url), { request: send } as unknown as RpcChannel, cookies as Cookies, request.signal)
  return [header.mock.lastCall?.[1], send.mock.lastCall?.[0].headers.find(([name]) => name === 'sec-fetch-site')?.[1]]
}

it("a reload sends the cookies of the navigation that it repeats, so none for another site's form", async () => {
  expect(await reloaded({ method: 'POST', origin: ELSEWHERE })).toEqual(['none', 'cross-site'])
  expect(await reloaded({ method: 'POST', referrer: `${ELSEWHERE}/` })).toEqual(['none', 'cross-site'])
  expect(await reloaded({ referrer: `${ELSEWHERE}/` })).toEqual(['lax', 'cross-site'])
  expect(await reloaded({})).toEqual(['lax', 'none'])
  expect(await reloaded({ method: 'POST', origin: OWN })).toEqual(['strict', 'same-origin'])
})

it('a status that browsers do not accept is reported, and its body is cancelled', async () => {
  for (const status of [100, 101, 199, 600, 999]) {
    const cancel = vi.fn()
    const got = passedOn({ status, body: new ReadableStream({ cancel }) })
    await expect(got).rejects.toThrow(`status is ${status}`)
    expect(cancel).toHaveBeenCalledOnce()
  }
  for (const status of [200, 204, 304, 418, 599]) expect((await passedOn({ status })).status).toBe(status)
})

it('a response in an unsupported encoding is rejected', async () => {
  const encoded = (...encodings: string[]): Partial<ChannelResponse> => ({ headers: encodings.map((it) => ['Content-Encoding', it]) })
  for (const encodings of [['br'], ['zstd'], ['gzip, gzip'], ['gzip', 'br'], ['constructor']]) {
    await expect(passedOn(encoded(...encodings))).rejects.toThrow(`encoded as '${encodings.join(', ')}'`)
  }
  for (const plain of ['identity', 'none', 'UTF-8', ' ']) expect(await (await passedOn(encoded(plain))).text()).toBe('as it came')
  const gzip = (): ChannelResponse['body'] => new Blob(['packed']).stream().pipeThrough(new CompressionStream('gzip'))
  for (const known of ['gzip', ' X-GZIP']) {
    expect(await (await passedOn({ ...encoded(known), body: gzip() })).text()).toBe('packed')
  }
  // Without a body there is nothing to decode.
  expect((await passedOn(encoded('br'), 'HEAD')).headers.get('content-encoding')).toBe('br')
  expect((await passedOn({ ...encoded('br'), status: 304 })).status).toBe(304)
})
