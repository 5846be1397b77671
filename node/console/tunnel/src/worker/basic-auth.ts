/** Signs in with HTTP Basic authentication (RFC 7617): browsers do not ask for a password when a service worker answers. */
import { values } from '../headers'
import type { HeaderList } from '../protocol'

/** The URL at which the user asked for the app's own answer. */
let declined: string | null = null

/** Returns the realm of a Basic challenge, empty if it has none; `null` without such a challenge. */
export function basicRealm(headers: HeaderList): string | null {
  const challenge = values(headers, 'www-authenticate').find((value) => /(^|,)\s*basic(\s|,|$)/i.test(value))
  if (challenge === undefined) return null
  const parameters = /(?:^|,)\s*basic\s+(.*)$/i.exec(challenge)?.[1] ?? ''
  const realm = /(?:^|[\s,])realm\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))/i.exec(parameters)
  return realm?.[1]?.replaceAll(/\\(.)/g, '$1') ?? realm?.[2] ?? ''
}

/** Returns the value of the `Authorization` header for a user, in UTF-8. */
export function basicAuthorization(user: string, password: string): string {
  const bytes = new TextEncoder().encode(`${user}:${password}`)
  return `Basic ${btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''))}`
}

/** Lets the next navigation to a URL show the answer of the app instead of the sign-in page. */
export function decline(url: string): void {
  declined = url
}

/** Tells whether the user asked for the app's own answer at a URL, once. */
export function wasDeclined(url: string): boolean {
  if (declined !== url) return false
  declined = null
  return true
}
