import './polyfills.js'

import { describe, expect, it } from 'vitest'

import { decodeClaims, verifyMember, verifySuccession } from '../src/certificate.js'
import { endorsement, identity, jwt, memberClaims, userToken } from './credentials.js'

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

describe('a certificate of a later signing key', () => {
  it('is accepted if the root has endorsed the key', async () => {
    const [root, first, member, other] = [await identity(), await identity(), await identity(), await identity()]
    const issuer = await endorsement(root, first, 1)
    const certificate = await jwt(first, memberClaims(root, member, { iss: first.id, issuer }))
    expect(await verifyMember(certificate, root.id, member.id)).toBe('server')
    const server = await jwt(root, memberClaims(root, first))
    const refused: [string, string][] = [
      ['another key', await jwt(other, memberClaims(root, member, { iss: other.id, issuer }))],
      ['no endorsement', await jwt(first, memberClaims(root, member, { iss: first.id }))],
      ['endorsed by another', await jwt(first, memberClaims(root, member, { iss: first.id, issuer: await endorsement(other, first, 1) }))],
      ['a certificate as endorsement', await jwt(first, memberClaims(root, member, { iss: first.id, issuer: server }))],
      ['epoch 0', await jwt(first, memberClaims(root, member, { iss: first.id, issuer: await endorsement(root, first, 0) }))],
      ['an endorsement', issuer],
    ]
    for (const [what, certificate] of refused) {
      await expect(verifyMember(certificate, root.id, member.id), what).rejects.toMatchObject(notAMember)
    }
  })

  it('gets a token of the same key, of one before it and of its own node', async () => {
    const [root, first, second, member, server] = [
      await identity(),
      await identity(),
      await identity(),
      await identity(),
      await identity(),
    ]
    const [one, two, forged] = [
      await endorsement(root, first, 1),
      await endorsement(root, second, 2, first),
      await endorsement(root, second, 9),
    ]
    const of = async (key: typeof root, issuer?: string): Promise<string> =>
      await jwt(key, memberClaims(root, member, issuer === undefined ? {} : { iss: key.id, issuer }))
    const token = async (certificate: string): Promise<string> =>
      await jwt(server, { aud: root.id, iss: server.id, sub: 'ada', exp: 4e9, scope: { user: 'admin' }, peers: [], issuer: certificate })
    const [old, later] = [await token(await of(root)), await token(await of(first, one))]
    const check = async (certificate: string, shown: string): Promise<void> => {
      await verifySuccession(certificate, root.id, member.id, shown)
    }
    for (const certificate of [await of(root), await of(first, one), await of(second, two), await of(second, forged)]) {
      await check(certificate, old)
    }
    for (const certificate of [await of(first, one), await of(second, two)]) await check(certificate, later)
    const borrowed = await jwt(root, memberClaims(root, member, { issuer: one }))
    for (const certificate of [await of(root), await of(second, forged), borrowed]) {
      await expect(check(certificate, later)).rejects.toMatchObject({ code: 'failed' })
    }
    await verifySuccession(await of(root), root.id, server.id, later)
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
