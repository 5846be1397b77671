import { describe, expect, it, vi } from 'vitest'
import type { Seen } from '../src/headers'
import { cookieContext, incoming, initiator, outgoing } from '../src/headers'

vi.stubGlobal('navigator', { userAgent: 'a browser', languages: ['en'] })

const OWN = 'http://web.localhost:4779'
const seen = (request: Partial<Omit<Seen, 'headers'>> & { headers?: Record<string, string> } = {}): Seen => ({
  method: 'GET',
  mode: 'cors',
  destination: '',
  referrer: '',
  credentials: 'same-origin',
  ...request,
  headers: new Headers(request.headers),
})
const context = (request: Seen): string | null => cookieContext(request, initiator(request, OWN))

describe('which cookies go with a request', () => {
  it("all of them with those of the app's pages", () => {
    expect(context(seen({ method: 'POST' }))).toBe('strict')
    expect(context(seen({ mode: 'navigate', referrer: `${OWN}/x` }))).toBe('strict')
    expect(context(seen({ mode: 'navigate', method: 'POST', referrer: `${OWN}/x` }))).toBe('strict')
  })

  it("those that may with a link from elsewhere, none with another site's form", () => {
    expect(context(seen({ mode: 'navigate', referrer: 'https://evil.example/' }))).toBe('lax')
    expect(context(seen({ mode: 'navigate' }))).toBe('lax')
    expect(context(seen({ mode: 'navigate', method: 'POST', referrer: 'https://evil.example/' }))).toBe('none')
    expect(context(seen({ mode: 'navigate', method: 'POST' }))).toBe('none')
    expect(context(seen({ mode: 'navigate', method: 'POST', referrer: `${OWN}/x`, headers: { origin: 'null' } }))).toBe('none')
  })

  it('none when the page says so', () => {
    expect(context(seen({ credentials: 'omit' }))).toBeNull()
  })
})

describe('what an app is told', () => {
  const url = new URL(`${OWN}/a?b`)
  const told = (request: Seen): Map<string, string> => new Map(outgoing(request, url, initiator(request, OWN), 'c=1'))

  it('is where it is seen, and from where it is asked', () => {
    const headers = told(seen({ method: 'POST', referrer: `${OWN}/x`, headers: { 'x-own': 'kept' } }))
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

  it("is never that another site's form is its own", () => {
    const form = seen({ mode: 'navigate', method: 'POST' })
    expect(told(form).get('origin')).toBe('null')
    expect(told(form).get('sec-fetch-site')).toBe('cross-site')
  })

  it('is not what a page makes up', () => {
    const headers = outgoing(seen({ headers: { host: 'evil', cookie: 'a=1', 'sec-fetch-site': 'none' } }), url, 'same-origin', '')
    expect(headers.filter(([name]) => ['host', 'cookie', 'sec-fetch-site'].includes(name))).toEqual([
      ['host', 'web.localhost:4779'],
      ['sec-fetch-site', 'same-origin'],
    ])
  })

  it('asks for parts of a file as they are', () => {
    expect(told(seen({ headers: { range: 'bytes=0-' } })).get('accept-encoding')).toBe('identity')
  })
})

it('an answer passes on all but cookies, what is left out, and what is no header', () => {
  const headers = incoming(
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
