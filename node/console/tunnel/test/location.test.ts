import { expect, it } from 'vitest'
import { rewriteLocation } from '../src/location'

const APP = { service: 'shop/web', port: 8080 }
const REQUEST = new URL('http://web--shop--tag.localhost:4779/a/b?c')
const led = (location: string): string => rewriteLocation(location, REQUEST, APP)

it("a redirect to the service by one of its names stays at the app's origin", () => {
  for (const host of ['web', 'web.shop', 'web.shop:8080', 'localhost:8080', '127.0.0.1', '[::1]:8080', '0.0.0.0']) {
    expect(led(`http://${host}/login?to=%2F#top`), host).toBe('http://web--shop--tag.localhost:4779/login?to=%2F#top')
  }
  expect(led('https://web.shop/')).toBe('http://web--shop--tag.localhost:4779/')
})

it('any other stays as it is', () => {
  for (const location of ['/there', 'c', '?d', 'https://example.org/', 'http://localhost:9090/', 'http://api.shop/', 'mailto:a@b', 'http://[', '//example.org/x']) {
    expect(led(location), location).toBe(location)
  }
})
