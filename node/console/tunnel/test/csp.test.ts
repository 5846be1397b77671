import { expect, it } from 'vitest'
import { allowScript } from '../src/csp'

const URL = 'http://app.localhost:1/x.js'
const allowed = (policy: string, url = URL): string => allowScript(policy, url, 'N')

it('a policy allows the injected script in addition to its own sources', () => {
  expect(allowed("default-src 'self'")).toBe(`default-src 'self' ${URL}`)
  expect(allowed("script-src 'none'; img-src *")).toBe(`script-src ${URL}; img-src *`)
  expect(allowed("default-src 'none'; script-src-elem a.example; script-src b.example")).toBe(
    `default-src 'none'; script-src-elem a.example ${URL}; script-src b.example`,
  )
  expect(allowed("script-src 'unsafe-inline'")).toBe(`script-src 'unsafe-inline' ${URL}`)
  expect(allowed("script-src 'nonce-abc' 'strict-dynamic'")).toBe("script-src 'nonce-abc' 'strict-dynamic' 'nonce-N'")
})

it('each of several policies allows the injected script', () => {
  expect(allowed("default-src 'self', script-src b.example")).toBe(`default-src 'self' ${URL},script-src b.example ${URL}`)
})

it('a policy without script sources is unchanged', () => {
  expect(allowed("img-src 'self'; frame-ancestors 'none';")).toBe("img-src 'self'; frame-ancestors 'none'")
})

it('upgrade-insecure-requests is removed at an origin without TLS', () => {
  expect(allowed('upgrade-insecure-requests; img-src *')).toBe('img-src *')
  expect(allowed('upgrade-insecure-requests; img-src *', 'https://a.example/x.js')).toBe('upgrade-insecure-requests; img-src *')
})
