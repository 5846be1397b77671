import { signal } from '@preact/signals'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { Mesh, MeshState, Reply, Request } from 'vc-mesh'

import { concerned, deploy, draft, forgetDraft, startOver, step, takeFile, tryDry, type Review } from '../src/deployment'
import type { Session } from '../src/state'
import { dismiss, toasts } from '../src/toasts'
import { plan, scene, spec } from './scene'

const LIVE: MeshState = { state: 'live', node: 'n', address: '', rttMs: null, role: 'deployer', user: 'ada' }
const { services, instances } = scene(0)
const row = services[0] ?? expect.fail('the scene has services')

const lost = () => Object.assign(new Error('the node is gone'), { code: 'lost' })

/** What a node answers that takes everything: a file's text is the name of its project. */
function answerTo(request: Request): Reply {
  switch (request.op) {
    case 'compose':
      return {
        reply: 'composed',
        value: { project: request.text, deployments: [{ service: row.service, replicas: 1, spec }], files: [], warnings: [] },
      }
    case 'diff':
      return { reply: 'diff', value: [] }
    case 'plan':
      return { reply: 'plan', value: plan }
    case 'inspect':
      return { reply: 'service', value: { row, deployed_by: 'ada', spec, previous: null, instances: [] } }
    default:
      return { reply: 'done', value: [{ change: 'updated', service: 'shop/web' }] }
  }
}

/** A session with a node that answers so; `null`: as one that takes everything. */
function sessionWith(answer: (request: Request) => Promise<Reply> | null): Session {
  const request = async (it: Request) => (await answer(it)) ?? answerTo(it)
  return {
    link: signal(LIVE),
    isLive: signal(true),
    services: signal(services),
    instances: signal(instances),
    mesh: { request } as unknown as Mesh,
  } as unknown as Session
}

const willing = sessionWith(() => null)
const failing = (op: Request['op'], error: Error) =>
  sessionWith((request) => (request.op === op ? Promise.reject(error) : null))

/** A node that reads files only when it is let. */
function slow() {
  const waiting = new Map<string, () => void>()
  const session = sessionWith((request) => {
    if (request.op !== 'compose') return null
    return new Promise((resolve) => waiting.set(request.text, () => resolve(answerTo(request))))
  })
  const read = async (text: string) => {
    await expect.poll(() => waiting.has(text)).toBe(true)
    waiting.get(text)?.()
  }
  return { session, read }
}

const review = (): Review => (step.value.step === 'review' ? step.value.review : expect.fail(`it is at '${step.value.step}'`))
const problem = (): string => (step.value.step === 'choose' ? step.value.problem : expect.fail(`it is at '${step.value.step}'`))
const file = (name: string, text = name) => new File([text], name)
const settled = () => new Promise((resolve) => setTimeout(resolve, 5))

beforeEach(forgetDraft)
afterEach(() => toasts.value.forEach((it) => dismiss(it.id)))

test('of two files that are dropped one after the other the second is reviewed, whichever the node reads first', async () => {
  const { session, read } = slow()
  void takeFile(file('first'), session)
  await settled()
  void takeFile(file('second'), session)
  await read('second')
  await expect.poll(() => step.value.step).toBe('review')
  await read('first')
  await settled()
  expect(review()).toMatchObject({ name: 'second', composed: { project: 'second' } })
  expect(draft.value.text).toBe('second')
})

test('a review has the name of its own file, not of the one that is being read', async () => {
  await takeFile(file('first'), willing)
  const first = review()
  draft.value = { ...draft.value, name: 'second' }
  expect(first.name).toBe('first')
})

test('what is begun anew is not disturbed by a dry run from before', async () => {
  const { session, read } = slow()
  void takeFile(file('first'), session)
  await read('first')
  startOver()
  await settled()
  expect(problem()).toBe('')
})

test('a file that is too large takes the place of the one before, and the limit is told', async () => {
  await takeFile(file('good.yaml'), willing)
  await takeFile(file('large.yaml', 'x'.repeat(1024 * 1024 + 1)), willing)
  expect(problem()).toMatch(/^large\.yaml is too large.*1 MiB/)
  expect(draft.value).toMatchObject({ name: '', text: '' })
})

test('a text that is too large is not sent, and stays to be made smaller', async () => {
  const text = 'ä'.repeat(600 * 1024)
  draft.value = { ...draft.value, text }
  await tryDry(sessionWith(() => expect.fail('the node is asked')))
  expect(problem()).toMatch(/^This text is too large.*1 MiB/)
  expect(draft.value.text).toBe(text)
})

test('a node that is lost during a deployment may have made it: that is said, and what is so now is asked for', async () => {
  await takeFile(file('web'), willing)
  expect(review().isInDoubt).toBe(false)
  await deploy(failing('deploy', lost()), review())
  await expect.poll(() => step.value.step).toBe('review')
  expect(review().isInDoubt).toBe(true)
  expect(toasts.value.map((it) => it.text)).toEqual(['The node was lost before it answered; it may have deployed this'])
})

test('a deployment that a node refuses has not happened', async () => {
  await takeFile(file('web'), willing)
  await deploy(failing('deploy', new Error('no room')), review())
  expect(review().isInDoubt).toBe(false)
  expect(toasts.value.map((it) => it.text)).toEqual(['No room'])
})

test('a review leaves out what has no place anyway, and keeps what loses its place', async () => {
  await takeFile(file('web'), willing)
  const slot = (service: string) => ({ service, replica: 1, reasons: [] })
  const moves = [{ service: 'other/loses', replica: 1, from: 'n1', to: null, reason: 'no room' }]
  const all = [row.service, 'other/waits', 'other/loses'].map(slot)
  const { unplaced } = concerned({ ...review(), plan: { ...plan, unplaced: all, moves } })
  expect(unplaced.map((it) => it.service)).toEqual([row.service, 'other/loses'])
})

test('a deployment that cannot be followed has happened all the same', async () => {
  await takeFile(file('web'), willing)
  await deploy(failing('inspect', new Error('no such service')), review())
  expect(problem()).toMatch(/^It is deployed \(shop\/web updated\).*No such service/)
})

test('nothing of a draft is left for whoever signs in next', async () => {
  draft.value = { name: 'a.yaml', text: 'PASSWORD: hunter2', project: 'mine' }
  forgetDraft()
  expect(draft.value).toEqual({ name: '', text: '', project: '' })
})
