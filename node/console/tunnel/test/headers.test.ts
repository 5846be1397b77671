import { describe, expect, it, vi } from 'vitest'
import type { RequestMetadata } from '../src/headers'
import { cookieContext, responseHeaders, initiator, requestHeaders } from '../src/headers'

vi.stubGlobal('navigator', { userAgent: 'a browser', languages: ['en'] })

const OWN = 'http://web.localhost:4779'
const request = (request: Partial<Omit<RequestMetadata, 'headers'>> & { headers?: Record<string, string> } = {}): RequestMetadata => ({
  method: 'GET',
  mode: 'cors',
  destination: '',
  referrer: '',
  credentials: 'same-origin',
  ...request,
  headers: new Headers(request.headers),
})
const context = (request: RequestMetadata): string | null => cookieContext(request, initiator(request, OWN))

describe('cookieContext', () => {
  it("sends all cookies with requests of the app's pages", () => {
    expect(context(request({ method: 'POST' }))).toBe('strict')
    expect(context(request({ mode: 'navigate', referrer: `${OWN}/x` }))).toBe('strict')
    expect(context(request({ mode: 'navigate', method: 'POST', referrer: `${OWN}/x` }))).toBe('strict')
  })

  it("sends Lax cookies with a link from another site, and none with another site's form", () => {
    expect(context(request({ mode: 'navigate', referrer: 'https://evil.example/' }))).toBe('lax')
    expect(context(request({ mode: 'navigate' }))).toBe('lax')
    expect(context(request({ mode: 'navigate', method: 'POST', referrer: 'https://evil.example/' }))).toBe('none')
    expect(context(request({ mode: 'navigate', method: 'POST' }))).toBe('none')
    expect(context(request({ mode: 'navigate', method: 'POST', referrer: `${OWN}/x`, headers: { origin: 'null' } }))).toBe('none')
  })

  it('sends none when the page omits credentials', () => {
    expect(context(request({ credentials: 'omit' }))).toBeNull()
  })
})

describe('requestHeaders', () => {
  const url = new URL(`${OWN}/a?b`)
  const sent = (request: RequestMetadata): Map<string, string> => new Map(requestHeaders(request, url, initiator(request, OWN), 'c=1'))

  it('contain the host of the app and the origin of the request', () => {
    const headers = sent(request({ method: 'POST', referrer: `${OWN}/x`, headers: { 'x-own': 'kept' } }))
    expect(Object.fromEntries(headers)).toMatchObject({
      host: 'web.localhost:4779',
      origin: OWN,
      referer: `${OWN}/x`,
      cookie: 'c=1',
      'x-own': 'kept',
      'x-forwarded-host': 'web.localhost:4779',
      'x-forwarded-proto': 'http',
      'sec-fetch-site': 'same-origin',
      'accept-encoding': 'gzip',
    })
  })

  it("mark another site's form as cross-site", () => {
    const form = request({ mode: 'navigate', method: 'POST' })
    expect(sent(form).get('origin')).toBe('null')
    expect(sent(form).get('sec-fetch-site')).toBe('cross-site')
  })

  it('replace forbidden headers of the page', () => {
    const headers = requestHeaders(request({ headers: { host: 'evil', cookie: 'a=1', 'sec-fetch-site': 'none' } }), url, 'same-origin', '')
    expect(headers.filter(([name]) => ['host', 'cookie', 'sec-fetch-site'].includes(name))).toEqual([
      ['host', 'web.localhost:4779'],
      ['sec-fetch-site', 'same-origin'],
    ])
  })

  it('request ranges unencoded', () => {
    expect(sent(request({ headers: { range: 'bytes=0-' } })).get('accept-encoding')).toBe('identity')
  })
})

it('responseHeaders drops cookies, the excluded names and invalid headers', () => {
  const headers = responseHeaders(
    [
      ['Content-Type', 'text/html'],
      ['Set-Cookie', 'a=1'],
      ['Service-Worker-Allowed', '/'],
      ['Content-Length', '7'],
      ['bad name', 'x'],
      ['X-Own', 'kept'],
    ],
    new Set(['content-length']),
  )
  expect([...headers]).toEqual([
    ['content-type', 'text/html'],
    ['x-own', 'kept'],
  ])
})
