import { beforeEach, expect, it, vi } from 'vitest'
import type { Cookies } from '../src/cookies'
import type { Line } from '../src/line'
import { answer } from '../src/worker/answer'

const OWN = 'http://web.localhost:4779'
const ELSEWHERE = 'https://evil.example'

beforeEach(() => {
  vi.stubGlobal('self', { location: new URL(OWN) })
  vi.stubGlobal('navigator', { userAgent: 'a browser', languages: ['en'] })
})

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
  await answer(request, new URL(request.url), { request: ask } as unknown as Line, cookies as Cookies)
  return [header.mock.lastCall?.[1], ask.mock.lastCall?.[0].headers.find(([name]) => name === 'sec-fetch-site')?.[1]]
}

it("a reload has the cookies of what it repeats: another site's form gets none the second time either", async () => {
  expect(await reloaded({ method: 'POST', origin: ELSEWHERE })).toEqual(['none', 'cross-site'])
  expect(await reloaded({ method: 'POST', referrer: `${ELSEWHERE}/` })).toEqual(['none', 'cross-site'])
  expect(await reloaded({ referrer: `${ELSEWHERE}/` })).toEqual(['lax', 'cross-site'])
  expect(await reloaded({})).toEqual(['lax', 'none'])
  expect(await reloaded({ method: 'POST', origin: OWN })).toEqual(['strict', 'same-origin'])
})
