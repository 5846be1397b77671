/**
 * Stores the cookies of an app, because responses of a service worker cannot set cookies.
 *
 * Cookies that scripts may see are in the browser's own store, which `document.cookie` reads and writes. HttpOnly cookies are
 * in a jar here, and so are cookies with another path than `/`, which the browser does not show to a service worker. Without
 * the Cookie Store API every cookie is in the jar: it is sent, but scripts do not see it. `Domain` is ignored: a cookie is
 * sent to its app only.
 */
import { Cookie, CookieJar, MemoryCookieStore } from 'tough-cookie'

/** The `SameSite` value of a cookie, or the strictest value that a request satisfies. */
export type SameSite = 'strict' | 'lax' | 'none'

interface BrowserCookie {
  name?: string
  value?: string
  sameSite?: string
}

/** The part of the browser's `CookieStore` that is used. */
export interface BrowserCookieStore {
  getAll(): Promise<BrowserCookie[]>
  set(cookie: { name: string; value: string; path: string; expires: number | null; sameSite: SameSite }): Promise<void>
  delete(cookie: { name: string; path: string }): Promise<void>
}

/** Persists the jar between lives of the service worker. */
export interface JarStore {
  load(): Promise<unknown>
  save(jar: unknown): Promise<void>
}

/** The cookies of one app, in the jar and in the browser's store. */
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

  /** Loads the stored jar; a missing or corrupt one counts as empty. `browser` is `null` without the Cookie Store API. */
  static async open(store: JarStore, browser: BrowserCookieStore | null): Promise<Cookies> {
    const stored = await store.load().catch(() => null)
    return new Cookies(deserialize(stored), browser, store)
  }

  /** Returns the `Cookie` header of a request; empty if there are no cookies for it. */
  async header(url: string, context: SameSite): Promise<string> {
    const hidden = this.#jar.getCookiesSync(url, { sameSiteContext: context })
    const names = new Set(hidden.filter((cookie) => cookie.path === '/').map((cookie) => cookie.key))
    const visible = (await this.#browser?.getAll()) ?? []
    const sent = visible.filter(({ name, sameSite }) => !names.has(name ?? '') && isSent(sameSite, context))
    return [
      ...hidden.map((cookie) => cookie.cookieString()),
      ...sent.map(({ name, value }) => (name ? `${name}=${value ?? ''}` : (value ?? ''))),
    ].join('; ')
  }

  /** Stores the `Set-Cookie` headers of a response. Ignores malformed ones, as browsers do. */
  async setFromResponse(url: string, setCookies: string[]): Promise<void> {
    for (const line of setCookies) {
      const stored = this.#setInJar(url, line, true)
      if (stored) await this.#setInBrowser(stored)
    }
    if (setCookies.length > 0) await this.#save()
  }

  /** Stores a cookie that a script set. With the path `/` the browser's store has it already. */
  async setFromScript(url: string, line: string): Promise<void> {
    const stored = this.#setInJar(url, line, false)
    if (this.#browser && stored?.path === '/') await this.#removeFromJar(stored)
    await this.#save()
  }

  /** Sets a cookie in the jar, which checks it and resolves its path; returns `null` if it is rejected. */
  #setInJar(url: string, line: string, http: boolean): Cookie | null {
    const cookie = Cookie.parse(line, { loose: true })
    if (!cookie || (cookie.key.startsWith('__Host-') && cookie.domain !== null)) return null
    if (!http && cookie.httpOnly) return null
    cookie.domain = null
    cookie.sameSite = sameSite(cookie.sameSite)
    return this.#jar.setCookieSync(cookie, url, { http, ignoreError: true }) ?? null
  }

  /** Sets a cookie in the browser's store, or deletes it there if it is HttpOnly or expired. */
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
      // The browser rejects it, as it would from a server: it is too long, for example.
    }
  }

  async #removeFromJar({ domain, path, key }: Cookie): Promise<void> {
    await this.#jar.store.removeCookie(domain, path, key)
  }

  /** Saves the jar. Saves are serialized, so that the newest state is stored last. */
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

/** Parses a `SameSite` attribute; the default is `Lax`. */
function sameSite(given: string | undefined): SameSite {
  const value = given?.toLowerCase()
  return value === 'strict' || value === 'none' ? value : 'lax'
}

function isSent(given: string | undefined, context: SameSite): boolean {
  const needed = sameSite(given)
  return context === 'strict' || needed === 'none' || (context === 'lax' && needed === 'lax')
}
