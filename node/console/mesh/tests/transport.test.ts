import './polyfills.js'

import { describe, expect, it } from 'vitest'

import { certhashOf, fingerprintOf, parseAddress } from '../src/transport/address.js'
import { buildAnswer, noisePrologue } from '../src/transport/sdp.js'
import { Flag, MAX_MESSAGE, MessageDecoder, OVERHEAD, encodeMessage } from '../src/transport/message.js'
import { cuts, join } from './bytes.js'

const PEER = '12D3KooWDKvqD9CifJYsAKnFYqByTwe2fwNaLdBvsiHW8oBJ86rr'
const HASH = 'uEiDGXC1RYSMp4KvQJ2xWRGkZ4FKN4tEvFxLIqoADFVkQTg'
const ADDRESS = `/ip4/127.0.0.1/udp/4778/webrtc-direct/certhash/${HASH}/p2p/${PEER}`
const PASSWORD = 'abcdefghijklmnopqrstuv+/'
const OFFER = ['v=0', `a=ice-ufrag:wxyz`, `a=ice-pwd:${PASSWORD}`, `a=fingerprint:sha-256 ${Array(32).fill('0A').join(':')}`, ''].join('\r\n')

function address(text = ADDRESS) {
  const parsed = parseAddress(text)
  if (!parsed) throw new Error(`no address: ${text}`)
  return parsed
}

describe('an address', () => {
  it('is parsed to host, port, peer id and certificate hash', () => {
    expect(address()).toMatchObject({ family: 4, host: '127.0.0.1', port: 4778, peer: PEER })
    expect(address(ADDRESS.replace('/ip4/127.0.0.1', '/ip6/fe80::1')).family).toBe(6)
    expect(certhashOf(fingerprintOf(address().certhash))).toEqual(address().certhash)
  })

  it('of another kind is not parsed', () => {
    for (const other of [
      '',
      `/ip4/127.0.0.1/tcp/4777/p2p/${PEER}`,
      ADDRESS.replace(`/p2p/${PEER}`, ''),
      ADDRESS.replace(PEER, '12D3KooW'),
      ADDRESS.replace('4778', '70000'),
      ADDRESS.replace(HASH, 'uEiDGXC1RYSMp'),
      ADDRESS.replace(HASH, HASH.replace('uEi', 'uEz')),
      ADDRESS.replace('127.0.0.1', '127.0.0.1\r\na=x'),
      `${ADDRESS}/p2p-circuit/p2p/${PEER}`,
    ]) {
      expect(parseAddress(other), other).toBeNull()
    }
  })
})

describe('the SDP answer for a node', () => {
  it("contains the browser's ICE password and the node's certificate fingerprint", () => {
    const answer = buildAnswer(address(), OFFER)
    expect(answer).toContain(`a=ice-ufrag:libp2p+webrtc+v2/${PASSWORD}\r\n`)
    expect(answer).toContain(`a=ice-pwd:libp2p+webrtc+v2/${PASSWORD}\r\n`)
    expect(answer).toContain(`a=fingerprint:sha-256 ${fingerprintOf(address().certhash)}\r\n`)
    expect(answer).toContain('a=setup:passive\r\n')
    expect(answer).toContain(' 127.0.0.1 4778 typ host\r\n')
  })

  it('requires an ICE password in the offer', () => {
    for (const offer of ['', OFFER.replace('a=ice-pwd', 'a=other'), OFFER.replace(PASSWORD, 'short'), OFFER.replace(PASSWORD, `${PASSWORD}:`)]) {
      expect(() => buildAnswer(address(), offer)).toThrow('ICE password')
    }
  })

  it('has a Noise prologue with both certificates', () => {
    const prologue = noisePrologue(address(), OFFER)
    expect(prologue.length).toBe('libp2p-webrtc-noise:'.length + 34 + 34)
    expect(prologue.slice(-34)).toEqual(address().certhash)
    expect(prologue.slice(-68, -34)).toEqual(Uint8Array.of(0x12, 0x20, ...Array(32).fill(0x0a)))
  })
})

describe('messages on a data channel', () => {
  it('are decoded for any division of the bytes', () => {
    const data = Uint8Array.from({ length: 300 }, (_, i) => i)
    const bytes = join(encodeMessage(data, null), encodeMessage(null, Flag.Fin), encodeMessage(Uint8Array.of(1), Flag.FinAck))
    for (const pieces of cuts(bytes)) {
      const decoder = new MessageDecoder()
      const messages = pieces.flatMap((piece) => decoder.push(piece))
      expect(messages).toEqual([{ data }, { flag: Flag.Fin }, { flag: Flag.FinAck, data: Uint8Array.of(1) }])
    }
  })

  it('of the maximum size fit the limit', () => {
    const largest = encodeMessage(new Uint8Array(MAX_MESSAGE - OVERHEAD), Flag.Fin)
    expect(largest.byteLength).toBeLessThanOrEqual(MAX_MESSAGE)
    expect(new MessageDecoder().push(largest)).toHaveLength(1)
  })

  it('may contain unknown fields', () => {
    const known = encodeMessage(Uint8Array.of(7), null).slice(1)
    const unknown = Uint8Array.of(0x18, 5, 0x22, 2, 9, 9)
    const bytes = join(Uint8Array.of(known.length + unknown.length), unknown, known)
    expect(new MessageDecoder().push(bytes)).toEqual([{ data: Uint8Array.of(7) }])
  })

  it('that are malformed or too large are rejected', () => {
    for (const bytes of [
      [0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
      [0x81, 0x80, 0x01],
      [3, 0x12, 9, 1],
      [2, 0x12, 0xff],
      [2, 0x0d, 1],
      [1, 0x08],
    ]) {
      expect(() => new MessageDecoder().push(Uint8Array.from(bytes)), String(bytes)).toThrow()
    }
  })
})
