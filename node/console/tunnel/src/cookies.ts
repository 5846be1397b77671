/**
 * The cookies of an app.
 *
 * A service worker's answers cannot set cookies. Those that scripts may see go to the browser's own store, where
 * `document.cookie` has them and puts more; those that they may not (HttpOnly) are kept in a jar here. So are those for a
 * part of the app's paths, for the browser tells a service worker only of those for all. Without a Cookie Store API every
 * cookie is in the jar: sent, but unseen by scripts. Whatever `Domain` says, a cookie stays with its app.
 */
import { Cookie, CookieJar, MemoryCookieStore } from 'tough-cookie'

/** How near a request's initiator is: what a cookie's `SameSite` asks for. */
export type SameSite = 'strict' | 'lax' | 'none'

interface VisibleCookie {
  name?: string
  value?: string
  sameSite?: string
}

/** What of the browser's `CookieStore` is used. */
export interface VisibleCookies {
  getAll(): Promise<VisibleCookie[]>
  set(cookie: { name: string; value: string; path: string; expires: number | null; sameSite: SameSite }): Promise<void>
  delete(cookie: { name: string; path: string }): Promise<void>
}

/** Where the jar is while the service worker is not. */
export interface Shelf {
  load(): Promise<unknown>
  save(jar: unknown): Promise<void>
}

export class Cookies {
  readonly #jar: CookieJar
  readonly #visible: VisibleCookies | null
  readonly #shelf: Shelf
  #saving = Promise.resolve()

  private constructor(jar: CookieJar, visible: VisibleCookies | null, shelf: Shelf) {
    this.#jar = jar
    this.#visible = visible
    this.#shelf = shelf
  }

  static async open(shelf: Shelf, visible: VisibleCookies | null): Promise<Cookies> {
    const kept = await shelf.load().catch(() => null)
    return new Cookies(unshelve(kept), visible, shelf)
  }

  /** The `Cookie` header of a request; empty: none. */
  async header(url: string, context: SameSite): Promise<string> {
    const hidden = this.#jar.getCookiesSync(url, { sameSiteContext: context })
    const names = new Set(hidden.filter((cookie) => cookie.path === '/').map((cookie) => cookie.key))
    const seen = (await this.#visible?.getAll()) ?? []
    const sent = seen.filter(({ name, sameSite }) => !names.has(name ?? '') && goes(sameSite, context))
    return [
      ...hidden.map((cookie) => cookie.cookieString()),
      ...sent.map(({ name, value }) => (name ? `${name}=${value ?? ''}` : (value ?? ''))),
    ].join('; ')
  }

  /** Takes what an answer sets. What is no cookie is passed over, as browsers do. */
  async take(url: string, setCookies: string[]): Promise<void> {
    for (const line of setCookies) {
      const kept = this.#put(url, line, true)
      if (kept) await this.#show(kept)
    }
    if (setCookies.length > 0) await this.#save()
  }

  /** Takes what a script of a page sets: the browser has it already, and shows it for all paths. */
  async takeFromScript(url: string, line: string): Promise<void> {
    const kept = this.#put(url, line, false)
    if (this.#visible && kept?.path === '/') await this.#forget(kept)
    await this.#save()
  }

  /** Puts a cookie into the jar, which says whether it may be here, and for which path. */
  #put(url: string, line: string, http: boolean): Cookie | null {
    const cookie = Cookie.parse(line, { loose: true })
    if (!cookie || (cookie.key.startsWith('__Host-') && cookie.domain !== null)) return null
    if (!http && cookie.httpOnly) return null
    cookie.domain = null
    cookie.sameSite = sameSite(cookie.sameSite)
    return this.#jar.setCookieSync(cookie, url, { http, ignoreError: true }) ?? null
  }

  /** Lets scripts see a cookie, or not. */
  async #show(cookie: Cookie): Promise<void> {
    if (!this.#visible) return
    const { key: name, value } = cookie
    const path = cookie.path ?? '/'
    const until = cookie.expiryTime() ?? Infinity
    if (path === '/' && !cookie.httpOnly) await this.#forget(cookie)
    try {
      if (cookie.httpOnly || until <= Date.now()) return await this.#visible.delete({ name, path })
      const expires = until === Infinity ? null : until
      await this.#visible.set({ name, value, path, expires, sameSite: sameSite(cookie.sameSite) })
    } catch {
      // The browser does not take it (too long, say), as it would not from a server.
    }
  }

  async #forget({ domain, path, key }: Cookie): Promise<void> {
    await this.#jar.store.removeCookie(domain, path, key)
  }

  /** One after another: the last one saved is the last one taken. */
  #save(): Promise<void> {
    this.#saving = this.#saving.then(() => this.#shelf.save(this.#jar.serializeSync())).catch(() => {})
    return this.#saving
  }
}

function unshelve(kept: unknown): CookieJar {
  const options = { rejectPublicSuffixes: false, looseMode: true }
  if (typeof kept !== 'object' || kept === null) return new CookieJar(new MemoryCookieStore(), options)
  try {
    return CookieJar.deserializeSync(JSON.stringify({ ...kept, ...options }))
  } catch {
    return new CookieJar(new MemoryCookieStore(), options)
  }
}

/** Without a word on it, `Lax`. */
function sameSite(given: string | undefined): SameSite {
  const word = given?.toLowerCase()
  return word === 'strict' || word === 'none' ? word : 'lax'
}

function goes(given: string | undefined, context: SameSite): boolean {
  const needed = sameSite(given)
  return context === 'strict' || needed === 'none' || (context === 'lax' && needed === 'lax')
}
