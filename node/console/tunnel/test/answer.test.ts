import { beforeEach, expect, it, vi } from 'vitest'
import type { Cookies } from '../src/cookies'
import type { Incoming, Line } from '../src/line'
import { answer } from '../src/worker/answer'

const OWN = 'http://web.localhost:4779'
const ELSEWHERE = 'https://evil.example'

beforeEach(() => {
  vi.stubGlobal('self', { location: new URL(OWN) })
  vi.stubGlobal('navigator', { userAgent: 'a browser', languages: ['en'] })
})

const noCookies: Pick<Cookies, 'header' | 'take'> = { header: async () => '', take: async () => {} }

/** What the browser gets for an app's answer. */
async function passedOn(got: Partial<Incoming>, method = 'GET'): Promise<Response> {
  const body = new Response('as it came').body as Incoming['body']
  const line = { request: async (): Promise<Incoming> => ({ status: 200, headers: [], body, ...got }) } as unknown as Line
  const request = new Request(`${OWN}/a`, { method })
  return answer(request, new URL(request.url), line, noCookies as Cookies, request.signal)
}

/** Which cookies an app gets with a navigation that the user's reload repeats, and what it is told of where that began. */
async function reloaded(how: { method?: string; referrer?: string; origin?: string }): Promise<[cookies: unknown, from: unknown]> {
  const { method = 'GET', referrer = '', origin } = how
  const request = Object.defineProperties(new Request(`${OWN}/a`, { method }), {
    mode: { value: 'navigate' },
    referrer: { value: referrer },
    headers: { value: new Headers(origin === undefined ? {} : { origin }) },
    isReloadNavigation: { value: true },
  })
  const ask = vi.fn<Line['request']>(async () => ({ status: 204, headers: [], body: new ReadableStream() }))
  const header = vi.fn<Cookies['header']>(async () => '')
  const cookies: Pick<Cookies, 'header' | 'take'> = { header, take: async () => {} }
  await answer(request, new URL(request.url), { request: ask } as unknown as Line, cookies as Cookies, request.signal)
  return [header.mock.lastCall?.[1], ask.mock.lastCall?.[0].headers.find(([name]) => name === 'sec-fetch-site')?.[1]]
}

it("a reload has the cookies of what it repeats: another site's form gets none the second time either", async () => {
  expect(await reloaded({ method: 'POST', origin: ELSEWHERE })).toEqual(['none', 'cross-site'])
  expect(await reloaded({ method: 'POST', referrer: `${ELSEWHERE}/` })).toEqual(['none', 'cross-site'])
  expect(await reloaded({ referrer: `${ELSEWHERE}/` })).toEqual(['lax', 'cross-site'])
  expect(await reloaded({})).toEqual(['lax', 'none'])
  expect(await reloaded({ method: 'POST', origin: OWN })).toEqual(['strict', 'same-origin'])
})

it('a status that no page can get is said to be one, and its body is not fetched', async () => {
  for (const status of [100, 101, 199, 600, 999]) {
    const cancel = vi.fn()
    const got = passedOn({ status, body: new ReadableStream({ cancel }) })
    await expect(got).rejects.toThrow(`status is ${status}`)
    expect(cancel).toHaveBeenCalledOnce()
  }
  for (const status of [200, 204, 304, 418, 599]) expect((await passedOn({ status })).status).toBe(status)
})

it('an answer in an encoding that cannot be decoded is not handed on for what it is not', async () => {
  const encoded = (...encodings: string[]): Partial<Incoming> => ({ headers: encodings.map((it) => ['Content-Encoding', it]) })
  for (const encodings of [['br'], ['zstd'], ['gzip, gzip'], ['gzip', 'br'], ['constructor']]) {
    await expect(passedOn(encoded(...encodings))).rejects.toThrow(`encoded as '${encodings.join(', ')}'`)
  }
  for (const plain of ['identity', 'none', 'UTF-8', ' ']) expect(await (await passedOn(encoded(plain))).text()).toBe('as it came')
  const gzip = (): Incoming['body'] => new Blob(['packed']).stream().pipeThrough(new CompressionStream('gzip'))
  for (const known of ['gzip', ' X-GZIP']) {
    expect(await (await passedOn({ ...encoded(known), body: gzip() })).text()).toBe('packed')
  }
  // Where there is nothing to decode, the header is only said.
  expect((await passedOn(encoded('br'), 'HEAD')).headers.get('content-encoding')).toBe('br')
  expect((await passedOn({ ...encoded('br'), status: 304 })).status).toBe(304)
})
