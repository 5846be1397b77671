import { signal } from '@preact/signals'
import { expect, test } from 'vitest'
import type { Mesh, MeshState, Reply } from 'vc-mesh'

import { call, callWithRetry } from '../src/model/rpc'
import type { Session } from '../src/model/state'

const LIVE: MeshState = { state: 'live', node: 'n', address: '', rttMs: null, role: 'viewer', user: 'ada' }
const LOST: MeshState = { state: 'lost', since: 0, reason: 'gone', retryAt: 0 }

function lost(): Error {
  return Object.assign(new Error('connection lost'), { code: 'lost' })
}

/** A session whose node gives these replies in order. */
function sessionWith(replies: (() => Reply)[]) {
  const connection = signal<MeshState>(LIVE)
  let requests = 0
  const request = async () => {
    const reply = replies[requests++]
    if (!reply) throw new Error('too many requests')
    return reply()
  }
  const session = { connection, mesh: { request } as unknown as Mesh } as unknown as Session
  return { session, connection, requests: () => requests }
}

const fails = (error: Error) => () => {
  throw error
}

test('a request is retried once the connection is back', async () => {
  const { session, connection, requests } = sessionWith([fails(lost()), () => ({ reply: 'diff', value: [] })])
  connection.value = LOST
  const diff = callWithRetry(session, { op: 'diff', deployments: [], files: [] }, 'diff')
  await Promise.resolve()
  await Promise.resolve()
  expect(requests(), 'no request while disconnected').toBe(1)
  connection.value = LIVE
  expect(await diff).toEqual([])
})

test('errors of the node are not retried, and lost connections only a bounded number of times', async () => {
  const refusing = sessionWith([fails(new Error('no such service'))])
  await expect(callWithRetry(refusing.session, { op: 'inspect', service: 'x' }, 'service')).rejects.toThrow('no such service')
  const losing = sessionWith([fails(lost()), fails(lost()), fails(lost())])
  await expect(callWithRetry(losing.session, { op: 'inspect', service: 'x' }, 'service')).rejects.toThrow('connection lost')
  expect(losing.requests()).toBe(3)
})

test('a reply of another kind is an error', async () => {
  const { session } = sessionWith([() => ({ reply: 'done', value: [] })])
  await expect(call(session, { op: 'plan', deployments: [] }, 'plan')).rejects.toThrow("unexpected reply 'done' to 'plan'")
})
