import { afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import type { Mesh } from 'vc-mesh'

import { rememberedToken } from '../src/arrival'
import { draft } from '../src/deployment'
import { arriveAgain, arriveByLink, brought, dialled, leave, loadMesh, offered, session, signIn, signInInstead, signOut, stay } from '../src/entrance'
import { tokenOf } from './tokens'

vi.mock('vc-mesh', () => import('./fake-mesh'))

function storage(): Pick<Storage, 'getItem' | 'setItem' | 'removeItem'> {
  const kept = new Map<string, string>()
  return {
    getItem: (key) => kept.get(key) ?? null,
    setItem: (key, value) => void kept.set(key, value),
    removeItem: (key) => void kept.delete(key),
  }
}

const link = (claims: object) => ({ token: tokenOf(claims), peers: [] })
const [ada, mallory] = [{ sub: 'ada', aud: 'C1' }, { sub: 'mallory', aud: 'C1' }]
const elsewhere = { sub: 'ada', aud: 'C2' }

/** Who is signed in, once whatever began has ended. */
async function user(): Promise<string | null> {
  await loadMesh()
  await new Promise((resolve) => setTimeout(resolve, 5))
  const claims = session.value?.mesh.claims
  return claims ? `${claims.sub}@${claims.aud}` : null
}

beforeAll(async () => void (await loadMesh()))
beforeEach(() => {
  vi.stubGlobal('sessionStorage', storage())
  vi.stubGlobal('localStorage', storage())
})
afterEach(signOut)

test('a link signs in at once where nobody is', async () => {
  arriveByLink(link(mallory))
  expect(await user()).toBe('mallory@C1')
  expect(brought.value).toBeNull()
})

test('a link with a new token of the same user on the same cluster takes the place of the old one at once', async () => {
  arriveByLink(link(ada))
  await user()
  const before = session.value
  arriveByLink(link({ ...ada, exp: 4_000_000_001 }))
  expect(await user()).toBe('ada@C1')
  expect(brought.value).toBeNull()
  expect(session.value).not.toBe(before)
  expect(before?.mesh.state.state).toBe('closed')
})

test('a link for another user or cluster changes nothing before the user has said so', async () => {
  arriveAgain(tokenOf(ada))
  await user()
  const before = session.value
  for (const other of [link(mallory), link(elsewhere), link({ ...ada, exp: 1 }), { token: 'nonsense', peers: [] }]) {
    arriveByLink(other)
    expect(brought.value).toEqual({ arrival: other, instead: { user: 'ada', cluster: 'C1' } })
    expect(await user()).toBe('ada@C1')
    stay()
    expect(brought.value).toBeNull()
  }
  expect(session.value).toBe(before)
  expect(rememberedToken()).toBe(tokenOf(ada))
})

test('a link that comes while the mesh is still being loaded finds somebody here already', async () => {
  arriveAgain(tokenOf(ada))
  arriveByLink(link(mallory))
  expect(brought.value?.instead.user).toBe('ada')
  expect(await user()).toBe('ada@C1')
})

test('a remembered token that has expired is not replaced by a link either', async () => {
  arriveAgain(tokenOf({ ...ada, exp: 1 }))
  arriveByLink(link(mallory))
  expect(await user()).toBeNull()
  stay()
  expect(offered.value?.token).toBe(tokenOf({ ...ada, exp: 1 }))
})

test('who says so is signed in with what the link brought, and the other token is forgotten', async () => {
  arriveAgain(tokenOf(ada))
  await user()
  const before = session.value
  arriveByLink(link(elsewhere))
  signInInstead(tokenOf(elsewhere), [], false)
  expect(await user()).toBe('ada@C2')
  expect(before?.mesh.state.state).toBe('closed')
  expect(brought.value).toBeNull()
  expect(rememberedToken()).toBeNull()
})

test('of two tokens that are taken at once the later one counts, and only one session begins', async () => {
  const begun: number[] = []
  const end = session.subscribe((it) => void (it && begun.push(it.mesh.claims.exp)))
  arriveAgain(tokenOf(ada))
  arriveByLink(link({ ...ada, exp: 4_000_000_001 }))
  expect(await user()).toBe('ada@C1')
  expect(begun).toEqual([4_000_000_001])
  end()
})

test('whoever signs in often has one session, which ends with the sign-out', async () => {
  const begun = new Set<Mesh>()
  const end = session.subscribe((it) => void (it && begun.add(it.mesh)))
  for (let n = 0; n < 3; n += 1) void signIn(tokenOf(ada), [], false)
  await user()
  await signIn(tokenOf(ada), [], false)
  expect([...begun].map((it) => it.state.state === 'closed')).toEqual([true, false])
  signOut()
  expect([...begun].map((it) => it.state.state)).toEqual(['closed', 'closed'])
  end()
})

test('while the part that dials is fetched the sign-in waits, and can be cancelled', async () => {
  expect(dialled.value).toBeNull()
  const begun = signIn(tokenOf(ada), [], false)
  expect(dialled.value?.value.state).toBe('connecting')
  signOut()
  expect(dialled.value).toBeNull()
  await begun
  expect(session.value).toBeNull()
})

const NOTHING = { name: '', text: '', project: '' }
const SECRET = { name: 'a.yaml', text: 'PASSWORD: hunter2', project: 'shop' }

test('nobody finds the draft of who was here before', async () => {
  draft.value = SECRET
  signOut()
  expect(draft.value).toEqual(NOTHING)

  arriveByLink(link(ada))
  await user()
  draft.value = SECRET
  leave()
  arriveByLink(link(mallory))
  expect(await user()).toBe('mallory@C1')
  expect(draft.value).toEqual(NOTHING)
})

test('whoever comes again after his token ended finds his draft', async () => {
  arriveByLink(link(ada))
  await user()
  draft.value = SECRET
  leave()
  expect(await user()).toBeNull()
  await signIn(tokenOf({ ...ada, exp: 4_000_000_002 }), [], false)
  expect(draft.value).toEqual(SECRET)
  arriveByLink(link({ ...ada, exp: 4_000_000_003 }))
  expect(await user()).toBe('ada@C1')
  expect(draft.value).toEqual(SECRET)
})

test('a browser that keeps nothing signs in all the same', async () => {
  const refuse = (): never => {
    throw new DOMException('site data is blocked', 'SecurityError')
  }
  const blocked = { getItem: refuse, setItem: refuse, removeItem: refuse }
  vi.stubGlobal('sessionStorage', blocked)
  vi.stubGlobal('localStorage', blocked)
  await signIn(tokenOf(ada), [], true)
  expect(await user()).toBe('ada@C1')
  expect(rememberedToken()).toBeNull()
})
