import { afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import type { Mesh } from 'vc-mesh'

import { storedToken } from '../src/model/credentials'
import { draft } from '../src/model/deployment'
import { connection, dismissLink, endSession, initialCredentials, loadMesh, openLink, pendingLink, restoreSession, session, signIn, signOut, switchUser } from '../src/model/sign-in'
import { tokenOf } from './tokens'

vi.mock('vc-mesh', () => import('./fake-mesh'))

function storage(): Pick<Storage, 'getItem' | 'setItem' | 'removeItem'> {
  const items = new Map<string, string>()
  return {
    getItem: (key) => items.get(key) ?? null,
    setItem: (key, value) => void items.set(key, value),
    removeItem: (key) => void items.delete(key),
  }
}

const link = (claims: object) => ({ token: tokenOf(claims), peers: [] })
const [ada, mallory] = [{ sub: 'ada', aud: 'C1' }, { sub: 'mallory', aud: 'C1' }]
const otherCluster = { sub: 'ada', aud: 'C2' }

/** Returns the signed-in user as `USER@CLUSTER` once pending sign-ins have ended. */
async function user(): Promise<string | null> {
  await vi.dynamicImportSettled()
  const claims = session.value?.mesh.claims
  return claims ? `${claims.sub}@${claims.aud}` : null
}

beforeAll(async () => void (await loadMesh()))
beforeEach(() => {
  vi.stubGlobal('sessionStorage', storage())
  vi.stubGlobal('localStorage', storage())
})
afterEach(signOut)

test('a link signs in at once if there is no current user', async () => {
  openLink(link(mallory))
  expect(await user()).toBe('mallory@C1')
  expect(pendingLink.value).toBeNull()
})

test('a link with a new token of the same user and cluster replaces the session at once', async () => {
  openLink(link(ada))
  await user()
  const before = session.value
  openLink(link({ ...ada, exp: 4_000_000_001 }))
  expect(await user()).toBe('ada@C1')
  expect(pendingLink.value).toBeNull()
  expect(session.value).not.toBe(before)
  expect(before?.mesh.state.state).toBe('closed')
})

test('a link for another user or cluster changes nothing without confirmation', async () => {
  restoreSession(tokenOf(ada))
  await user()
  const before = session.value
  for (const other of [link(mallory), link(otherCluster), link({ ...ada, exp: 1 }), { token: 'nonsense', peers: [] }]) {
    openLink(other)
    expect(pendingLink.value).toEqual({ credentials: other, current: { user: 'ada', cluster: 'C1' } })
    expect(await user()).toBe('ada@C1')
    dismissLink()
    expect(pendingLink.value).toBeNull()
  }
  expect(session.value).toBe(before)
  expect(storedToken()).toBe(tokenOf(ada))
})

test('a link opened while the mesh client is loading does not replace the remembered user', async () => {
  restoreSession(tokenOf(ada))
  openLink(link(mallory))
  expect(pendingLink.value?.current.user).toBe('ada')
  expect(await user()).toBe('ada@C1')
})

test('a link does not replace an expired remembered token', async () => {
  restoreSession(tokenOf({ ...ada, exp: 1 }))
  openLink(link(mallory))
  expect(await user()).toBeNull()
  dismissLink()
  expect(initialCredentials.value?.token).toBe(tokenOf({ ...ada, exp: 1 }))
})

test('a confirmed link replaces the session and removes the remembered token', async () => {
  restoreSession(tokenOf(ada))
  await user()
  const before = session.value
  openLink(link(otherCluster))
  switchUser(tokenOf(otherCluster), [], false)
  expect(await user()).toBe('ada@C2')
  expect(before?.mesh.state.state).toBe('closed')
  expect(pendingLink.value).toBeNull()
  expect(storedToken()).toBeNull()
})

test('of two concurrent sign-ins only the later opens a session', async () => {
  const opened: number[] = []
  const unsubscribe = session.subscribe((it) => void (it && opened.push(it.mesh.claims.exp)))
  restoreSession(tokenOf(ada))
  openLink(link({ ...ada, exp: 4_000_000_001 }))
  expect(await user()).toBe('ada@C1')
  expect(opened).toEqual([4_000_000_001])
  unsubscribe()
})

test('repeated sign-ins leave one open session, which sign-out closes', async () => {
  const opened = new Set<Mesh>()
  const unsubscribe = session.subscribe((it) => void (it && opened.add(it.mesh)))
  for (let n = 0; n < 3; n += 1) void signIn(tokenOf(ada), [], false)
  await user()
  await signIn(tokenOf(ada), [], false)
  expect([...opened].map((it) => it.state.state === 'closed')).toEqual([true, false])
  signOut()
  expect([...opened].map((it) => it.state.state)).toEqual(['closed', 'closed'])
  unsubscribe()
})

test('a sign-in can be cancelled while the mesh client is loading', async () => {
  expect(connection.value).toBeNull()
  const signingIn = signIn(tokenOf(ada), [], false)
  expect(connection.value?.value.state).toBe('connecting')
  signOut()
  expect(connection.value).toBeNull()
  await signingIn
  expect(session.value).toBeNull()
})

const EMPTY = { name: '', text: '', project: '' }
const SECRET = { name: 'a.yaml', text: 'PASSWORD: hunter2', project: 'shop' }

test('sign-out, and a sign-in of another user, clear the draft', async () => {
  draft.value = SECRET
  signOut()
  expect(draft.value).toEqual(EMPTY)

  openLink(link(ada))
  await user()
  draft.value = SECRET
  endSession()
  openLink(link(mallory))
  expect(await user()).toBe('mallory@C1')
  expect(draft.value).toEqual(EMPTY)
})

test('the draft is kept when the same user signs in again after the token expired', async () => {
  openLink(link(ada))
  await user()
  draft.value = SECRET
  endSession()
  expect(await user()).toBeNull()
  await signIn(tokenOf({ ...ada, exp: 4_000_000_002 }), [], false)
  expect(draft.value).toEqual(SECRET)
  openLink(link({ ...ada, exp: 4_000_000_003 }))
  expect(await user()).toBe('ada@C1')
  expect(draft.value).toEqual(SECRET)
})

test('sign-in works when the browser blocks storage', async () => {
  const refuse = (): never => {
    throw new DOMException('site data is blocked', 'SecurityError')
  }
  const blocked = { getItem: refuse, setItem: refuse, removeItem: refuse }
  vi.stubGlobal('sessionStorage', blocked)
  vi.stubGlobal('localStorage', blocked)
  await signIn(tokenOf(ada), [], true)
  expect(await user()).toBe('ada@C1')
  expect(storedToken()).toBeNull()
})
