import { describe, expect, it } from 'vitest'

import { basicAuthorization, basicRealm, decline, wasDeclined } from '../src/worker/basic-auth'

const realm = (...challenges: string[]) => basicRealm(challenges.map((value) => ['WWW-Authenticate', value]))

describe('basicRealm', () => {
  it('reads the realm of a Basic challenge, beside others', () => {
    expect(realm('Basic realm="a registry"')).toBe('a registry')
    expect(realm('basic charset="UTF-8", realm="say \\"a\\", b"')).toBe('say "a", b')
    expect(realm('Digest realm="other", nonce="1"', 'Basic realm=plain')).toBe('plain')
    expect(realm('Bearer realm="other", Basic realm="own"')).toBe('own')
    expect(realm('Basic')).toBe('')
  })

  it('finds none in other challenges', () => {
    for (const challenge of ['Bearer realm="basic"', 'Negotiate', 'BasicX realm="a"']) expect(realm(challenge), challenge).toBeNull()
    expect(realm()).toBeNull()
  })
})

describe('basicAuthorization', () => {
  it('encodes UTF-8', () => {
    expect(basicAuthorization('ada', 'grün:1')).toBe('Basic YWRhOmdyw7xuOjE=')
  })
})

describe('decline', () => {
  it('holds for one answer at one URL', () => {
    decline('http://a/b')
    expect([wasDeclined('http://a/c'), wasDeclined('http://a/b'), wasDeclined('http://a/b')]).toEqual([false, true, false])
  })
})
