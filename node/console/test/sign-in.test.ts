import { expect, test } from 'vitest'

import { readFragment } from '../src/arrival'
import { bareToken, ownerOf, readToken } from '../src/token'
import { token } from './tokens'

const NOW = 1_800_000_000_000
const DIALABLE = '/ip4/192.168.1.11/udp/4778/webrtc-direct/certhash/uEi/p2p/12D3'
const nobody = () => []

const good = { sub: 'ada', aud: 'C1', exp: NOW / 1000 + 60, scope: { user: 'deployer' }, peers: [DIALABLE, '/ip4/192.168.1.11/tcp/4777/p2p/12D3'] }

test('a link brings its token and the addresses to try', () => {
  expect(readFragment('#token=a.b.c&peer=%2Fip4%2F10.0.0.1&peer=/ip4/10.0.0.2')).toEqual({
    token: 'a.b.c',
    peers: ['/ip4/10.0.0.1', '/ip4/10.0.0.2'],
  })
  expect(readFragment('#token=a.%0Ab.%20c')?.token, 'it was broken into lines').toBe('a.b.c')
  for (const other of ['', '#', '#/services/shop/web', '#token=']) expect(readFragment(other), other).toBeNull()
})

test('a token tells whose it is, until when, and which nodes a browser can dial', () => {
  expect(readToken(` ${token(good)}\n`, [], NOW, nobody)).toEqual({
    claims: { user: 'ada', role: 'deployer', cluster: 'C1', expires: NOW + 60_000, peers: [DIALABLE] },
  })
})

test('a token tells whose it is when it has expired, too', () => {
  expect(ownerOf(token({ ...good, exp: 1 }))).toEqual({ user: 'ada', cluster: 'C1' })
  for (const nobodys of ['', 'a.b.c', token([1]), token({ sub: 'ada' })]) expect(ownerOf(nobodys), nobodys).toBeNull()
})

test('a token that was broken into lines is read, and goes to the cluster, as one', () => {
  const broken = token(good).replace(/(.{40})/g, '$1\r\n  ')
  expect(readToken(broken, [], NOW, nobody)).toMatchObject({ claims: { user: 'ada' } })
  expect(bareToken(broken)).toBe(token(good))
})

test('names outside ASCII are read', () => {
  const reading = readToken(token({ ...good, sub: 'Jürgen' }), [], NOW, nobody)
  expect(reading).toMatchObject({ claims: { user: 'Jürgen' } })
})

test('addresses that came along or are known are tried as well, each once', () => {
  const [came, known] = [DIALABLE.replace('.11', '.12'), DIALABLE.replace('.11', '.13')]
  const reading = readToken(token(good), [came, DIALABLE], NOW, (cluster) => (cluster === 'C1' ? [known, came] : []))
  expect(reading).toMatchObject({ claims: { peers: [came, DIALABLE, known] } })
})

test('what cannot be used is told with what to do', () => {
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
  for (const [text, wanted] of cases) {
    const reading = readToken(text, [], NOW, nobody)
    expect('problem' in reading && reading.problem, text).toMatch(wanted)
  }
})
