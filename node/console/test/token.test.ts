import { expect, test } from 'vitest'

import { parseFragment } from '../src/model/credentials'
import { parseToken, readSubject, stripWhitespace } from '../src/model/token'
import { token } from './tokens'

const NOW = 1_800_000_000_000
const DIALABLE = '/ip4/192.168.1.11/udp/4778/webrtc-direct/certhash/uEi/p2p/12D3'
const noPeers = () => []

const good = { sub: 'ada', aud: 'C1', exp: NOW / 1000 + 60, scope: { user: 'deployer' }, peers: [DIALABLE, '/ip4/192.168.1.11/tcp/4777/p2p/12D3'] }

test('a fragment contains a token and addresses', () => {
  expect(parseFragment('#token=a.b.c&peer=%2Fip4%2F10.0.0.1&peer=/ip4/10.0.0.2')).toEqual({
    token: 'a.b.c',
    peers: ['/ip4/10.0.0.1', '/ip4/10.0.0.2'],
  })
  expect(parseFragment('#token=a.%0Ab.%20c')?.token, 'line breaks are removed').toBe('a.b.c')
  for (const other of ['', '#', '#/services/shop/web', '#token=']) expect(parseFragment(other), other).toBeNull()
})

test('a token contains user, role, expiry and the addresses that a browser can dial', () => {
  expect(parseToken(` ${token(good)}\n`, [], NOW, noPeers)).toEqual({
    claims: { user: 'ada', role: 'deployer', cluster: 'C1', expires: NOW + 60_000, peers: [DIALABLE] },
  })
})

test('the subject of an expired token can be read', () => {
  expect(readSubject(token({ ...good, exp: 1 }))).toEqual({ user: 'ada', cluster: 'C1' })
  for (const invalid of ['', 'a.b.c', token([1]), token({ sub: 'ada' })]) expect(readSubject(invalid), invalid).toBeNull()
})

test('line breaks in a token are ignored', () => {
  const broken = token(good).replace(/(.{40})/g, '$1\r\n  ')
  expect(parseToken(broken, [], NOW, noPeers)).toMatchObject({ claims: { user: 'ada' } })
  expect(stripWhitespace(broken)).toBe(token(good))
})

test('user names may contain non-ASCII characters', () => {
  const reading = parseToken(token({ ...good, sub: 'Jürgen' }), [], NOW, noPeers)
  expect(reading).toMatchObject({ claims: { user: 'Jürgen' } })
})

test('addresses of the link, the token and the storage are merged without duplicates', () => {
  const [linked, stored] = [DIALABLE.replace('.11', '.12'), DIALABLE.replace('.11', '.13')]
  const reading = parseToken(token(good), [linked, DIALABLE], NOW, (cluster) => (cluster === 'C1' ? [stored, linked] : []))
  expect(reading).toMatchObject({ claims: { peers: [linked, DIALABLE, stored] } })
})

test('an unusable token is reported with the fix', () => {
  const cases: [string, RegExp][] = [
    ['hello', /not a token.*vc token create --user/s],
    ['a.b.c', /not a token/],
    [token([1, 2]), /for nodes|not a token/],
    [token({ ...good, scope: { 'node:join': 'server' } }), /for nodes.*vc token create --user/s],
    [token({ ...good, exp: NOW / 1000 }), /of ada has expired.*vc token create --user ada/s],
    [token({ ...good, exp: undefined }), /not a token of a Virtual Cluster/],
    [token({ ...good, exp: 1e15 }), /not a token of a Virtual Cluster/],
    [token({ ...good, exp: 8.64e12 + 1 }), /not a token of a Virtual Cluster/],
    [token({ ...good, peers: ['/ip4/10.0.0.1/tcp/4777'] }), /no node that a browser can dial.*vc console/s],
  ]
  for (const [text, expected] of cases) {
    const reading = parseToken(text, [], NOW, noPeers)
    expect('problem' in reading && reading.problem, text).toMatch(expected)
  }
})
