import { signal } from '@preact/signals'
import { expect, test } from 'vitest'
import type { Mesh, MeshState, Reply } from 'vc-mesh'

import { ask, askAgain } from '../src/ask'
import type { Session } from '../src/state'

const LIVE: MeshState = { state: 'live', node: 'n', address: '', rttMs: null, role: 'viewer', user: 'ada' }
const LOST: MeshState = { state: 'lost', since: 0, reason: 'gone', retryAt: 0 }

function lost(): Error {
  return Object.assign(new Error('the node is gone'), { code: 'lost' })
}

/** A session whose node gives these answers, one after another. */
function session(answers: (() => Reply)[]) {
  const link = signal<MeshState>(LIVE)
  let asked = 0
  const request = async () => {
    const answer = answers[asked++]
    if (!answer) throw new Error('asked too often')
    return answer()
  }
  const it = { link, mesh: { request } as unknown as Mesh } as unknown as Session
  return { it, link, asked: () => asked }
}

const fails = (error: Error) => () => {
  throw error
}

test('what is lost on the way is asked again once a node is there', async () => {
  const { it, link, asked } = session([fails(lost()), () => ({ reply: 'diff', value: [] })])
  link.value = LOST
  const answer = askAgain(it, { op: 'diff', deployments: [], files: [] }, 'diff')
  await Promise.resolve()
  await Promise.resolve()
  expect(asked(), 'nobody is asked while nobody is there').toBe(1)
  link.value = LIVE
  expect(await answer).toEqual([])
})

test('a node that refuses is not asked again, and one that is always lost not for ever', async () => {
  const refusing = session([fails(new Error('no such service'))])
  await expect(askAgain(refusing.it, { op: 'inspect', service: 'x' }, 'service')).rejects.toThrow('no such service')
  const losing = session([fails(lost()), fails(lost()), fails(lost())])
  await expect(askAgain(losing.it, { op: 'inspect', service: 'x' }, 'service')).rejects.toThrow('the node is gone')
  expect(losing.asked()).toBe(3)
})

test('an answer of another kind is an error', async () => {
  const { it } = session([() => ({ reply: 'done', value: [] })])
  await expect(ask(it, { op: 'plan', deployments: [] }, 'plan')).rejects.toThrow("answered 'done' to 'plan'")
})
