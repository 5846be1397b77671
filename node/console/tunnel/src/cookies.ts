/**
 * The cookies of an app.
 *
 * A service worker's answers cannot set cookies. Those that scripts may see go to the browser's own store, where
 * `document.cookie` has them and puts more; those that they may not (HttpOnly) are stored in a jar here. So are those for a
 * part of the app's paths, for the browser tells a service worker only of those for all. Without a Cookie Store API every
 * cookie is in the jar: sent, but unseen by scripts. Whatever `Domain` says, a cookie stays with its app.
 */
import { Cookie, CookieJar, MemoryCookieStore } from 'tough-cookie'

/** How near a request's initiator is: what a cookie's `SameSite` asks for. */
export type SameSite = 'strict' | 'lax' | 'none'

interface BrowserCookie {
  name?: string
  value?: string
  sameSite?: string
}

/** What of the browser's `CookieStore` is used. */
export interface BrowserCookieStore {
  getAll(): Promise<BrowserCookie[]>
  set(cookie: { name: string; value: string; path: string; expires: number | null; sameSite: SameSite }): Promise<void>
  delete(cookie: { name: string; path: string }): Promise<void>
}

/** Where the jar is while the service worker is not. */
export interface JarStore {
  load(): Promise<unknown>
  save(jar: unknown): Promise<void>
}

export class Cookies {
  readonly #jar: CookieJar
  readonly #browser: BrowserCookieStore | null
  readonly #store: JarStore
  #saving = Promise.resolve()

  private constructor(jar: CookieJar, browser: BrowserCookieStore | null, store: JarStore) {
    this.#jar = jar
    this.#browser = browser
    this.#store = store
  }

  static async open(store: JarStore, browser: BrowserCookieStore | null): Promise<Cookies> {
    const stored = await store.load().catch(() => null)
    return new Cookies(deserialize(stored), browser, store)
  }

  /** The `Cookie` header of a request; empty: none. */
  async header(url: string, context: SameSite): Promise<string> {
    const hidden = this.#jar.getCookiesSync(url, { sameSiteContext: context })
    const names = new Set(hidden.filter((cookie) => cookie.path === '/').map((cookie) => cookie.key))
    const seen = (await this.#browser?.getAll()) ?? []
    const sent = seen.filter(({ name, sameSite }) => !names.has(name ?? '') && isSent(sameSite, context))
    return [
      ...hidden.map((cookie) => cookie.cookieString()),
      ...sent.map(({ name, value }) => (name ? `${name}=${value ?? ''}` : (value ?? ''))),
    ].join('; ')
  }

  /** Takes what an answer sets. What is no cookie is passed over, as browsers do. */
  async setFromResponse(url: string, setCookies: string[]): Promise<void> {
    for (const line of setCookies) {
      const stored = this.#setInJar(url, line, true)
      if (stored) await this.#setInBrowser(stored)
    }
    if (setCookies.length > 0) await this.#save()
  }

  /** Takes what a script of a page sets: the browser has it already, and shows it for all paths. */
  async setFromScript(url: string, line: string): Promise<void> {
    const stored = this.#setInJar(url, line, false)
    if (this.#browser && stored?.path === '/') await this.#removeFromJar(stored)
    await this.#save()
  }

  /** Puts a cookie into the jar, which says whether it may be here, and for which path. */
  #setInJar(url: string, line: string, http: boolean): Cookie | null {
    const cookie = Cookie.parse(line, { loose: true })
    if (!cookie || (cookie.key.startsWith('__Host-') && cookie.domain !== null)) return null
    if (!http && cookie.httpOnly) return null
    cookie.domain = null
    cookie.sameSite = sameSite(cookie.sameSite)
    return this.#jar.setCookieSync(cookie, url, { http, ignoreError: true }) ?? null
  }

  /** Lets scripts see a cookie, or not. */
  async #setInBrowser(cookie: Cookie): Promise<void> {
    if (!this.#browser) return
    const { key: name, value } = cookie
    const path = cookie.path ?? '/'
    const until = cookie.expiryTime() ?? Infinity
    if (path === '/' && !cookie.httpOnly) await this.#removeFromJar(cookie)
    try {
      if (cookie.httpOnly || until <= Date.now()) return await this.#browser.delete({ name, path })
      const expires = until === Infinity ? null : until
      await this.#browser.set({ name, value, path, expires, sameSite: sameSite(cookie.sameSite) })
    } catch {
      // The browser does not take it (too long, say), as it would not from a server.
    }
  }

  async #removeFromJar({ domain, path, key }: Cookie): Promise<void> {
    await this.#jar.store.removeCookie(domain, path, key)
  }

  /** One after another: the last one saved is the last one taken. */
  #save(): Promise<void> {
    this.#saving = this.#saving.then(() => this.#store.save(this.#jar.serializeSync())).catch(() => {})
    return this.#saving
  }
}

function deserialize(stored: unknown): CookieJar {
  const options = { rejectPublicSuffixes: false, looseMode: true }
  if (typeof stored !== 'object' || stored === null) return new CookieJar(new MemoryCookieStore(), options)
  try {
    return CookieJar.deserializeSync(JSON.stringify({ ...stored, ...options }))
  } catch {
    return new CookieJar(new MemoryCookieStore(), options)
  }
}

/** Without a word on it, `Lax`. */
function sameSite(given: string | undefined): SameSite {
  const word = given?.toLowerCase()
  return word === 'strict' || word === 'none' ? word : 'lax'
}

function isSent(given: string | undefined, context: SameSite): boolean {
  const needed = sameSite(given)
  return context === 'strict' || needed === 'none' || (context === 'lax' && needed === 'lax')
}
