import { describe, expect, it } from 'vitest'
import { appLabel, appOrigin, loopbackConsoles, loopbackPattern, staticPattern } from '../src/label'

const CLUSTER = '12D3KooWcluster'
const LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/

describe('appLabel', () => {
  it('contains the names of service and project', () => {
    expect(appLabel(CLUSTER, 'shop/web', 8080)).toMatch(/^web--shop--[a-z2-7]{12}$/)
  })

  it('is a valid DNS label for any names', () => {
    const long = 'a'.repeat(63)
    for (const service of ['s/w_b', `${long}/${long}`, 'x-/xn', '9/xn--e', `p/${long.slice(1)}-`, 'a--b/c--d', 'p_/_', '/']) {
      expect(appLabel(CLUSTER, service, 80), service).toMatch(LABEL)
      expect(new URL(`http://${appLabel(CLUSTER, service, 80)}.localhost/`).hostname).toContain(appLabel(CLUSTER, service, 80))
    }
  })

  it('differs by cluster, service and port', () => {
    const long = 'a'.repeat(63)
    const apps: [string, string, number][] = [
      [CLUSTER, 'shop/web', 80],
      ['12D3KooWother', 'shop/web', 80],
      [CLUSTER, 'shop/web', 8080],
      [CLUSTER, 'b--c/a', 80],
      [CLUSTER, 'c/a--b', 80],
      [CLUSTER, 'p/a_b', 80],
      [CLUSTER, 'p/a-b', 80],
      [CLUSTER, `p/${long}`, 80],
      [CLUSTER, `q/${long}`, 80],
    ]
    expect(new Set(apps.map((app) => appLabel(...app))).size).toBe(apps.length)
  })
})

describe('the origin pattern of apps', () => {
  it('is below localhost for a console on a loopback address', () => {
    for (const host of ['127.0.0.1', 'localhost', '[::1]']) {
      expect(loopbackPattern(new URL(`http://${host}:4779/`))).toBe('http://{app}.localhost:4779')
    }
    for (const url of ['https://console.example.org/', 'http://192.168.1.7:4779/', 'https://127.0.0.1/', 'http://web.localhost:4779/']) {
      expect(loopbackPattern(new URL(url)), url).toBeNull()
    }
  })

  it('comes from console.json on a static host', () => {
    expect(staticPattern({ appsOrigin: 'https://{app}.apps.example.org' })).toBe('https://{app}.apps.example.org')
    expect(staticPattern({ appsOrigin: 'https://{app}.apps.example.org:8443' })).toBe('https://{app}.apps.example.org:8443')
  })

  it('is rejected if missing or malformed', () => {
    expect(() => staticPattern({})).toThrow(/vc console/)
    for (const appsOrigin of ['http://{app}.example.org', 'https://apps.example.org', 'https://{app}.example.org/path', 'https://{app}.{app}.org', 7]) {
      expect(() => staticPattern({ appsOrigin }), String(appsOrigin)).toThrow(/must be like/)
    }
  })

  it("never yields the console's own origin", () => {
    const pattern = 'https://{app}.example.org'
    expect(appOrigin(pattern, 'web--shop--abc', 'https://console.example.org')).toBe('https://web--shop--abc.example.org')
    expect(() => appOrigin(pattern, 'console', 'https://console.example.org')).toThrow(/own origin/)
    expect(() => appOrigin('https://console.example.org', 'web', 'https://other.example.org')).toThrow(/own origin/)
  })
})

describe('loopbackConsoles', () => {
  it('returns the loopback origins at the same port', () => {
    expect(loopbackConsoles(new URL('http://web.localhost:4779/'))).toEqual(['http://127.0.0.1:4779', 'http://localhost:4779', 'http://[::1]:4779'])
  })

  it('returns none for other hosts', () => {
    for (const url of ['https://web.localhost/', 'https://web.apps.example.org/', 'http://localhost:4779/']) {
      expect(loopbackConsoles(new URL(url)), url).toEqual([])
    }
  })
})
