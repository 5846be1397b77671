import { describe, expect, it } from 'vitest'
import type { Shelf, VisibleCookies } from '../src/cookies'
import { Cookies } from '../src/cookies'

const URL = 'http://web--shop--tag.localhost:4779/'

/** A browser's own store, of cookies for all paths, as a service worker sees it. */
class Store implements VisibleCookies {
  readonly held = new Map<string, { name: string; value: string; path: string; sameSite: string }>()
  getAll = async () => [...this.held.values()].filter(({ path }) => path === '/')
  set = async (cookie: Parameters<VisibleCookies['set']>[0]) => void this.held.set(cookie.name + cookie.path, cookie)
  delete = async ({ name, path }: { name: string; path: string }) => void this.held.delete(name + path)
}

function memory(): Shelf & { kept: unknown } {
  return {
    kept: null,
    async load() {
      return this.kept
    },
    async save(jar) {
      this.kept = structuredClone(jar)
    },
  }
}

const all = async (cookies: Cookies, url = URL): Promise<string[]> => (await cookies.header(url, 'strict')).split('; ').filter(Boolean).sort()

describe('cookies', () => {
  it('that scripts may see are in the browser, the others are not', async () => {
    const store = new Store()
    const cookies = await Cookies.open(memory(), store)
    await cookies.take(URL, ['a=1; HttpOnly', 'b=2', 'c=3; Path=/'])
    expect([...store.held.values()].map(({ name }) => name)).toEqual(['b', 'c'])
    expect(await all(cookies)).toEqual(['a=1', 'b=2', 'c=3'])
  })

  it('that become hidden or visible are never twice', async () => {
    const store = new Store()
    const cookies = await Cookies.open(memory(), store)
    await cookies.take(URL, ['a=1', 'a=2; HttpOnly'])
    expect(await all(cookies)).toEqual(['a=2'])
    expect(store.held.size).toBe(0)
    await cookies.take(URL, ['a=3'])
    expect(await all(cookies)).toEqual(['a=3'])
  })

  it('that scripts forge do not go in the place of hidden ones', async () => {
    const store = new Store()
    const cookies = await Cookies.open(memory(), store)
    await cookies.take(URL, ['a=1; HttpOnly'])
    await store.set({ name: 'a', value: 'forged', path: '/', expires: null, sameSite: 'lax' })
    await cookies.takeFromScript(URL, 'a=forged; path=/')
    expect(await all(cookies)).toEqual(['a=1'])
  })

  it('go to their paths, also those that scripts set there', async () => {
    const cookies = await Cookies.open(memory(), new Store())
    await cookies.take(URL, ['a=1; Path=/admin'])
    await cookies.takeFromScript(`${URL}admin/page`, 'b=2')
    await cookies.takeFromScript(URL, 'c=3; HttpOnly; path=/admin')
    expect(await all(cookies)).toEqual([])
    expect(await all(cookies, `${URL}admin/x`)).toEqual(['a=1', 'b=2'])
  })

  it('go with a request as near as they ask for', async () => {
    for (const store of [new Store(), null]) {
      const cookies = await Cookies.open(memory(), store)
      const given = ['s=1; SameSite=Strict', 'l=1', 'n=1; SameSite=None; Secure']
      await cookies.take(URL, [...given, ...given.map((line) => `h${line}; HttpOnly`)])
      const names = async (context: 'strict' | 'lax' | 'none') => (await cookies.header(URL, context)).replaceAll('=1', '').split('; ').sort()
      expect(await names('strict')).toEqual(['hl', 'hn', 'hs', 'l', 'n', 's'])
      expect(await names('lax')).toEqual(['hl', 'hn', 'l', 'n'])
      expect(await names('none')).toEqual(['hn', 'n'])
    }
  })

  it('end when they are to', async () => {
    const store = new Store()
    const cookies = await Cookies.open(memory(), store)
    await cookies.take(URL, ['a=1; HttpOnly', 'b=1', 'a=; Max-Age=0; HttpOnly', 'b=; Expires=Thu, 01 Jan 1970 00:00:00 GMT'])
    expect(await all(cookies)).toEqual([])
    expect(store.held.size).toBe(0)
  })

  it('stay with the app, whatever domain they name', async () => {
    const cookies = await Cookies.open(memory(), null)
    await cookies.take(URL, ['a=1; Domain=localhost', 'b=1; Domain=shop.example.com', '__Host-c=1; Path=/; Secure; Domain=localhost'])
    expect(await all(cookies)).toEqual(['a=1', 'b=1'])
    expect(await all(cookies, 'http://api--shop--tag.localhost:4779/')).toEqual([])
  })

  it('outlive the service worker, and a shelf with something else on it', async () => {
    const shelf = memory()
    await (await Cookies.open(shelf, null)).take(URL, ['a=1; HttpOnly'])
    expect(await all(await Cookies.open(shelf, null))).toEqual(['a=1'])
    shelf.kept = { cookies: 'none' }
    expect(await all(await Cookies.open(shelf, null))).toEqual([])
  })

  it('that are none are passed over', async () => {
    const cookies = await Cookies.open(memory(), null)
    await cookies.take(URL, ['', ';', '=', 'a=1'])
    expect(await all(cookies)).toContain('a=1')
  })
})
