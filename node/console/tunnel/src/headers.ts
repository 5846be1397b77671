/** What an app is told with a request, and the browser with an answer. */
import type { SameSite } from './cookies'
import type { HeaderList } from './protocol'

/** What of a `Request` is looked at. */
export type RequestMetadata = Pick<Request, 'method' | 'mode' | 'destination' | 'referrer' | 'credentials' | 'headers'>

/** Ours, or the browser's to say. */
const NOT_SENT = /^(cookie2?|host|origin|referer|accept-encoding|connection|content-length|sec-fetch-.*)$/

/** Where a request began, as far as a service worker is told. */
export type Initiator = 'same-origin' | 'cross-site' | 'none'

/**
 * What is not a navigation comes from a page of the app. A navigation names where it comes from; one that does not may be
 * the user's own, or that of a page elsewhere which hides. A reload by the user names what the navigation did that it repeats,
 * and counts as that did, as RFC 6265bis says; one by a script of the page names the page.
 */
export function initiator(request: RequestMetadata, own: string): Initiator {
  if (request.mode !== 'navigate') return 'same-origin'
  const origin = request.headers.get('origin') ?? URL.parse(request.referrer)?.origin
  if (origin === own) return 'same-origin'
  return origin || request.method !== 'GET' ? 'cross-site' : 'none'
}

/** Which cookies go with a request. */
export function cookieContext(request: RequestMetadata, from: Initiator): SameSite | null {
  if (request.credentials === 'omit') return null
  if (from === 'same-origin') return 'strict'
  return request.method === 'GET' || request.method === 'HEAD' ? 'lax' : 'none'
}

/** The headers of a request, as the app would get them from the browser. */
export function requestHeaders(request: RequestMetadata, url: URL, from: Initiator, cookie: string): HeaderList {
  const headers: HeaderList = [['host', url.host]]
  request.headers.forEach((value, name) => {
    if (!NOT_SENT.test(name)) headers.push([name, value])
  })
  const has = (name: string): boolean => headers.some(([known]) => known === name)
  if (!has('user-agent')) headers.push(['user-agent', navigator.userAgent])
  if (!has('accept-language')) headers.push(['accept-language', navigator.languages.join(', ')])
  // Pages compress well and the way is long; parts of a file are asked for as they are.
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

/** The values of a header. */
export function values(headers: HeaderList, name: string): string[] {
  return headers.filter(([known]) => known.toLowerCase() === name).map(([, value]) => value)
}

/** The headers of an answer, for the browser; those named in `without` are left out. */
export function responseHeaders(headers: HeaderList, without: ReadonlySet<string>): Headers {
  const passed = new Headers()
  for (const [name, value] of headers) {
    // Cookies have gone their own way; and who may have service workers here is not the app's business.
    if (without.has(name.toLowerCase()) || /^(set-cookie2?|service-worker-allowed)$/i.test(name)) continue
    try {
      passed.append(name, value)
    } catch {
      // No header that a browser takes.
    }
  }
  return passed
}
