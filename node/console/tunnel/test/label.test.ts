import { describe, expect, it } from 'vitest'
import { appLabel, appOrigin, loopbackConsoles, loopbackPattern, staticPattern } from '../src/label'

const CLUSTER = '12D3KooWcluster'
const LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/

describe('the label of an app', () => {
  it('names the service for people', () => {
    expect(appLabel(CLUSTER, 'shop/web', 8080)).toMatch(/^web--shop--[a-z2-7]{12}$/)
  })

  it('is a DNS label whatever the names are', () => {
    const long = 'a'.repeat(63)
    for (const service of ['s/w_b', `${long}/${long}`, 'x-/xn', '9/xn--e', `p/${long.slice(1)}-`, 'a--b/c--d', 'p_/_', '/']) {
      expect(appLabel(CLUSTER, service, 80), service).toMatch(LABEL)
      expect(new URL(`http://${appLabel(CLUSTER, service, 80)}.localhost/`).hostname).toContain(appLabel(CLUSTER, service, 80))
    }
  })

  it('is another for another cluster, service or port, however alike the names are', () => {
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

describe('where apps are', () => {
  it('is beside a console on this node', () => {
    for (const host of ['127.0.0.1', 'localhost', '[::1]']) {
      expect(loopbackPattern(new URL(`http://${host}:4779/`))).toBe('http://{app}.localhost:4779')
    }
    for (const url of ['https://console.example.org/', 'http://192.168.1.7:4779/', 'https://127.0.0.1/', 'http://web.localhost:4779/']) {
      expect(loopbackPattern(new URL(url)), url).toBeNull()
    }
  })

  it('is said by the static host of a console', () => {
    expect(staticPattern({ appsOrigin: 'https://{app}.apps.example.org' })).toBe('https://{app}.apps.example.org')
    expect(staticPattern({ appsOrigin: 'https://{app}.apps.example.org:8443' })).toBe('https://{app}.apps.example.org:8443')
  })

  it('is nowhere when the host says nothing, or what cannot be', () => {
    expect(() => staticPattern({})).toThrow(/vc console/)
    for (const appsOrigin of ['http://{app}.example.org', 'https://apps.example.org', 'https://{app}.example.org/path', 'https://{app}.{app}.org', 7]) {
      expect(() => staticPattern({ appsOrigin }), String(appsOrigin)).toThrow(/has to be like/)
    }
  })

  it("is never the console's own origin", () => {
    const pattern = 'https://{app}.example.org'
    expect(appOrigin(pattern, 'web--shop--abc', 'https://console.example.org')).toBe('https://web--shop--abc.example.org')
    expect(() => appOrigin(pattern, 'console', 'https://console.example.org')).toThrow(/own origin/)
    expect(() => appOrigin('https://console.example.org', 'web', 'https://other.example.org')).toThrow(/own origin/)
  })
})

describe('whom the first page of an app believes', () => {
  it('is the console at the same port of this node', () => {
    expect(loopbackConsoles(new URL('http://web.localhost:4779/'))).toEqual(['http://127.0.0.1:4779', 'http://localhost:4779', 'http://[::1]:4779'])
  })

  it('is nobody by that rule elsewhere', () => {
    for (const url of ['https://web.localhost/', 'https://web.apps.example.org/', 'http://localhost:4779/']) {
      expect(loopbackConsoles(new URL(url)), url).toEqual([])
    }
  })
})
