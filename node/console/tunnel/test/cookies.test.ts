import { describe, expect, it } from 'vitest'
import type { JarStore, BrowserCookieStore } from '../src/cookies'
import { Cookies } from '../src/cookies'

const URL = 'http://web--shop--tag.localhost:4779/'

/** Simulates `CookieStore` as a service worker sees it: it lists the cookies with the path `/` only. */
class FakeBrowserStore implements BrowserCookieStore {
  readonly held = new Map<string, { name: string; value: string; path: string; sameSite: string }>()
  getAll = async () => [...this.held.values()].filter(({ path }) => path === '/')
  set = async (cookie: Parameters<BrowserCookieStore['set']>[0]) => void this.held.set(cookie.name + cookie.path, cookie)
  delete = async ({ name, path }: { name: string; path: string }) => void this.held.delete(name + path)
}

function memoryStore(): JarStore & { stored: unknown } {
  return {
    stored: null,
    async load() {
      return this.stored
    },
    async save(jar) {
      this.stored = structuredClone(jar)
    },
  }
}

const all = async (cookies: Cookies, url = URL): Promise<string[]> => (await cookies.header(url, 'strict')).split('; ').filter(Boolean).sort()

describe('cookies', () => {
  it('without HttpOnly are in the browser store, the others are not', async () => {
    const store = new FakeBrowserStore()
    const cookies = await Cookies.open(memoryStore(), store)
    await cookies.setFromResponse(URL, ['a=1; HttpOnly', 'b=2', 'c=3; Path=/'])
    expect([...store.held.values()].map(({ name }) => name)).toEqual(['b', 'c'])
    expect(await all(cookies)).toEqual(['a=1', 'b=2', 'c=3'])
  })

  it('that gain or lose HttpOnly are not duplicated', async () => {
    const store = new FakeBrowserStore()
    const cookies = await Cookies.open(memoryStore(), store)
    await cookies.setFromResponse(URL, ['a=1', 'a=2; HttpOnly'])
    expect(await all(cookies)).toEqual(['a=2'])
    expect(store.held.size).toBe(0)
    await cookies.setFromResponse(URL, ['a=3'])
    expect(await all(cookies)).toEqual(['a=3'])
  })

  it('set by scripts do not replace HttpOnly ones', async () => {
    const store = new FakeBrowserStore()
    const cookies = await Cookies.open(memoryStore(), store)
    await cookies.setFromResponse(URL, ['a=1; HttpOnly'])
    await store.set({ name: 'a', value: 'forged', path: '/', expires: null, sameSite: 'lax' })
    await cookies.setFromScript(URL, 'a=forged; path=/')
    expect(await all(cookies)).toEqual(['a=1'])
  })

  it('are sent to their paths only, those set by scripts included', async () => {
    const cookies = await Cookies.open(memoryStore(), new FakeBrowserStore())
    await cookies.setFromResponse(URL, ['a=1; Path=/admin'])
    await cookies.setFromScript(`${URL}admin/page`, 'b=2')
    await cookies.setFromScript(URL, 'c=3; HttpOnly; path=/admin')
    expect(await all(cookies)).toEqual([])
    expect(await all(cookies, `${URL}admin/x`)).toEqual(['a=1', 'b=2'])
  })

  it('are sent as their SameSite attribute allows', async () => {
    for (const store of [new FakeBrowserStore(), null]) {
      const cookies = await Cookies.open(memoryStore(), store)
      const given = ['s=1; SameSite=Strict', 'l=1', 'n=1; SameSite=None; Secure']
      await cookies.setFromResponse(URL, [...given, ...given.map((line) => `h${line}; HttpOnly`)])
      const names = async (context: 'strict' | 'lax' | 'none') => (await cookies.header(URL, context)).replaceAll('=1', '').split('; ').sort()
      expect(await names('strict')).toEqual(['hl', 'hn', 'hs', 'l', 'n', 's'])
      expect(await names('lax')).toEqual(['hl', 'hn', 'l', 'n'])
      expect(await names('none')).toEqual(['hn', 'n'])
    }
  })

  it('expire', async () => {
    const store = new FakeBrowserStore()
    const cookies = await Cookies.open(memoryStore(), store)
    await cookies.setFromResponse(URL, ['a=1; HttpOnly', 'b=1', 'a=; Max-Age=0; HttpOnly', 'b=; Expires=Thu, 01 Jan 1970 00:00:00 GMT'])
    expect(await all(cookies)).toEqual([])
    expect(store.held.size).toBe(0)
  })

  it('are sent to their app only, whatever their Domain', async () => {
    const cookies = await Cookies.open(memoryStore(), null)
    await cookies.setFromResponse(URL, ['a=1; Domain=localhost', 'b=1; Domain=shop.example.com', '__Host-c=1; Path=/; Secure; Domain=localhost'])
    expect(await all(cookies)).toEqual(['a=1', 'b=1'])
    expect(await all(cookies, 'http://api--shop--tag.localhost:4779/')).toEqual([])
  })

  it('outlive the service worker, and a corrupt store counts as empty', async () => {
    const store = memoryStore()
    await (await Cookies.open(store, null)).setFromResponse(URL, ['a=1; HttpOnly'])
    expect(await all(await Cookies.open(store, null))).toEqual(['a=1'])
    store.stored = { cookies: 'none' }
    expect(await all(await Cookies.open(store, null))).toEqual([])
  })

  it('that are malformed are ignored', async () => {
    const cookies = await Cookies.open(memoryStore(), null)
    await cookies.setFromResponse(URL, ['', ';', '=', 'a=1'])
    expect(await all(cookies)).toContain('a=1')
  })
})
