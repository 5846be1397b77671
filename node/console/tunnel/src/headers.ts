/** Translates headers between the browser and the app. */
import type { SameSite } from './cookies'
import type { HeaderList } from './protocol'

/** The part of a `Request` that decides its headers. */
export type RequestMetadata = Pick<Request, 'method' | 'mode' | 'destination' | 'referrer' | 'credentials' | 'headers'>

/** Request headers that are replaced here or dropped. */
const NOT_SENT = /^(cookie2?|host|origin|referer|accept-encoding|connection|content-length|sec-fetch-.*)$/

/** The relation of a request's initiator to the app, as far as a service worker can tell. */
export type Initiator = 'same-origin' | 'cross-site' | 'none'

/**
 * Returns where a request comes from. Only the app's pages make requests other than navigations. A navigation carries its
 * origin or referrer; without either, it is the user's or that of a page that hides its own. A reload by the user repeats
 * the original navigation's referrer and counts as that navigation (RFC 6265bis); a reload by a script has the page's.
 */
export function initiator(request: RequestMetadata, own: string): Initiator {
  if (request.mode !== 'navigate') return 'same-origin'
  const origin = request.headers.get('origin') ?? URL.parse(request.referrer)?.origin
  if (origin === own) return 'same-origin'
  return origin || request.method !== 'GET' ? 'cross-site' : 'none'
}

/** Returns which cookies a request may carry; `null` for none at all (`credentials: 'omit'`). */
export function cookieContext(request: RequestMetadata, from: Initiator): SameSite | null {
  if (request.credentials === 'omit') return null
  if (from === 'same-origin') return 'strict'
  return request.method === 'GET' || request.method === 'HEAD' ? 'lax' : 'none'
}

/** Returns the headers of a request as the browser would send them to the app. */
export function requestHeaders(request: RequestMetadata, url: URL, from: Initiator, cookie: string): HeaderList {
  const headers: HeaderList = [['host', url.host]]
  request.headers.forEach((value, name) => {
    if (!NOT_SENT.test(name)) headers.push([name, value])
  })
  const has = (name: string): boolean => headers.some(([known]) => known === name)
  if (!has('user-agent')) headers.push(['user-agent', navigator.userAgent])
  if (!has('accept-language')) headers.push(['accept-language', navigator.languages.join(', ')])
  // A range of an encoded body is not the range of the decoded one.
  headers.push(['accept-encoding', has('range') ? 'identity' : 'gzip'])
  const referrer = URL.parse(request.referrer)
  if (referrer?.protocol.startsWith('http')) headers.push(['referer', referrer.href])
  if (request.mode === 'cors' ? request.method !== 'GET' : !['GET', 'HEAD'].includes(request.method)) {
    const given = request.headers.get('origin') ?? (from === 'same-origin' ? url.origin : (referrer?.origin ?? 'null'))
    headers.push(['origin', given])
  }
  headers.push(
    ['sec-fetch-site', from],
    ['sec-fetch-mode', request.mode],
    ['sec-fetch-dest', request.destination || 'empty'],
    ['x-forwarded-host', url.host],
    ['x-forwarded-proto', url.protocol.slice(0, -1)],
  )
  if (cookie !== '') headers.push(['cookie', cookie])
  return headers
}

/** Returns the values of a header, in order; `name` is in lower case. */
export function values(headers: HeaderList, name: string): string[] {
  return headers.filter(([known]) => known.toLowerCase() === name).map(([, value]) => value)
}

/** Returns the headers of a response for the browser, except those in `without` (in lower case). */
export function responseHeaders(headers: HeaderList, without: ReadonlySet<string>): Headers {
  const passed = new Headers()
  for (const [name, value] of headers) {
    // Cookies are stored separately, and the app must not allow service workers at this origin.
    if (without.has(name.toLowerCase()) || /^(set-cookie2?|service-worker-allowed)$/i.test(name)) continue
    try {
      passed.append(name, value)
    } catch {
      // The browser rejects the name or value.
    }
  }
  return passed
}
