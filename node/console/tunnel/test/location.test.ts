import { expect, it } from 'vitest'
import { rewriteLocation } from '../src/location'

const APP = { service: 'shop/web', port: 8080 }
const REQUEST = new URL('http://web--shop--tag.localhost:4779/a/b?c')
const rewritten = (location: string): string => rewriteLocation(location, REQUEST, APP)

it("a redirect to a name of the service leads to the app's origin", () => {
  for (const host of ['web', 'web.shop', 'web.shop:8080', 'localhost:8080', '127.0.0.1', '[::1]:8080', '0.0.0.0']) {
    expect(rewritten(`http://${host}/login?to=%2F#top`), host).toBe('http://web--shop--tag.localhost:4779/login?to=%2F#top')
  }
  expect(rewritten('https://web.shop/')).toBe('http://web--shop--tag.localhost:4779/')
})

it('any other redirect is unchanged', () => {
  for (const location of ['/there', 'c', '?d', 'https://example.org/', 'http://localhost:9090/', 'http://api.shop/', 'mailto:a@b', 'http://[', '//example.org/x']) {
    expect(rewritten(location), location).toBe(location)
  }
})
