/**
 * The cookies of an app.
 *
 * A service worker's answers cannot set cookies. Those that scripts may see go to the browser's own store, where
 * `document.cookie` has them and puts more; those that they may not (HttpOnly) are kept in a jar here. Without a Cookie
 * Store API all are in the jar: sent, but unseen by scripts. Whatever `Domain` says, a cookie stays with its app.
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
  getAll(options: { url: string }): Promise<VisibleCookie[]>
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
    const names = new Set(hidden.map((cookie) => cookie.key))
    const seen = (await this.#visible?.getAll({ url })) ?? []
    const sent = seen.filter(({ name, sameSite }) => !names.has(name ?? '') && goes(sameSite, context))
    return [
      ...hidden.map((cookie) => cookie.cookieString()),
      ...sent.map(({ name, value }) => (name ? `${name}=${value ?? ''}` : (value ?? ''))),
    ].join('; ')
  }

  /** Takes what an answer sets. What is no cookie is passed over, as browsers do. */
  async take(url: string, setCookies: string[]): Promise<void> {
    for (const line of setCookies) {
      const cookie = Cookie.parse(line, { loose: true })
      if (!cookie || (cookie.key.startsWith('__Host-') && cookie.domain !== null)) continue
      cookie.domain = null
      cookie.sameSite = sameSite(cookie.sameSite)
      await this.#put(url, cookie)
    }
    if (setCookies.length > 0) await this.#save()
  }

  async #put(url: string, cookie: Cookie): Promise<void> {
    // The jar says whether it may be here at all, and for which path.
    const kept = this.#jar.setCookieSync(cookie, url, { ignoreError: true })
    if (!kept || !this.#visible) return
    const { key: name, value } = kept
    const path = kept.path ?? '/'
    if (kept.httpOnly) {
      await this.#visible.delete({ name, path }).catch(() => {})
      return
    }
    this.#jar.store.removeCookie(kept.domain, kept.path, kept.key)
    const until = kept.expiryTime()
    if (until !== undefined && until <= Date.now()) return void (await this.#visible.delete({ name, path }).catch(() => {}))
    const expires = until === undefined || until === Infinity ? null : until
    try {
      await this.#visible.set({ name, value, path, expires, sameSite: sameSite(kept.sameSite) })
    } catch {
      // The browser does not take it (too long, say), as it would not from a server.
    }
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
