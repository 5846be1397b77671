import './polyfills.js'

import { describe, expect, it } from 'vitest'

import { decodeClaims, verifyMember } from '../src/certificate.js'
import { identity, jwt, memberClaims, userToken } from './credentials.js'

const notAMember = { code: 'failed', message: 'the node that answered is not a member of this cluster' }

describe('a membership certificate', () => {
  it('is accepted if the root signed it for the peer', async () => {
    const [root, member] = [await identity(), await identity()]
    expect(await verifyMember(await jwt(root, memberClaims(root, member)), root.id, member.id)).toBe('server')
  })

  it('of another peer, another cluster or another signer is rejected', async () => {
    const [root, member, other] = [await identity(), await identity(), await identity()]
    const good = await jwt(root, memberClaims(root, member))
    const refused: [string, string, string, string][] = [
      ['another peer', good, root.id, other.id],
      ['another cluster', good, other.id, member.id],
      ['another signer', await jwt(other, memberClaims(root, member)), root.id, member.id],
      ['signed by itself', await jwt(member, memberClaims(root, member, { iss: member.id })), root.id, member.id],
      ['another cluster with our name', await jwt(other, memberClaims(other, member, { aud: root.id })), root.id, member.id],
      ['no cluster', good, 'QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N', member.id],
    ]
    for (const [what, certificate, cluster, peer] of refused) {
      await expect(verifyMember(certificate, cluster, peer), what).rejects.toMatchObject(notAMember)
    }
  })

  it('that is another kind of token or malformed is rejected', async () => {
    const [root, member] = [await identity(), await identity()]
    const refused = [
      await userToken(root, []),
      await jwt(root, memberClaims(root, member, { scope: { 'node:join': 'server' } })),
      await jwt(root, memberClaims(root, member, { scope: { 'node:member': 'admin' } })),
      await jwt(root, memberClaims(root, member, { scope: null })),
      await jwt(root, memberClaims(root, member), { typ: 'JWT', alg: 'none' }),
      await jwt(root, memberClaims(root, member), { typ: 'JWT', alg: 'HS256' }),
      (await jwt(root, memberClaims(root, member), { alg: 'none' })).replace(/[^.]*$/, ''),
      `${await jwt(root, memberClaims(root, member))}.more`,
      '',
      'a.b.c',
      'undefined',
    ]
    for (const certificate of refused) {
      await expect(verifyMember(certificate, root.id, member.id), certificate).rejects.toMatchObject(notAMember)
    }
  })

  it('with any character changed is rejected', async () => {
    const [root, member] = [await identity(), await identity()]
    const certificate = await jwt(root, memberClaims(root, member))
    // The last character has unused bits.
    for (let at = 0; at < certificate.length - 1; at++) {
      const altered = certificate.slice(0, at) + (certificate[at] === 'A' ? 'B' : 'A') + certificate.slice(at + 1)
      await expect(verifyMember(altered, root.id, member.id), `character ${at}`).rejects.toMatchObject(notAMember)
    }
  })
})

describe('a token', () => {
  it('is decoded to its cluster, user and addresses without a check', async () => {
    const root = await identity()
    expect(decodeClaims(await userToken(root, ['/ip4/1.2.3.4']))).toMatchObject({ aud: root.id, sub: 'ada', peers: ['/ip4/1.2.3.4'] })
  })

  it('that is malformed decodes to null', () => {
    for (const text of ['', 'x', 'a.b.c', `x.${Buffer.from('{}').toString('base64url')}.x`, 'é'.repeat(9000)]) {
      expect(decodeClaims(text), text.slice(0, 9)).toBeNull()
    }
  })
})
