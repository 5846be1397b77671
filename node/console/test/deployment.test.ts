import { signal } from '@preact/signals'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { Mesh, MeshState, Reply, Request } from 'vc-mesh'

import { clearDraft, deploy, draft, dryRun, loadFile, relevantPlan, type Review, startOver, step } from '../src/model/deployment'
import type { Session } from '../src/model/state'
import { dismiss, toasts } from '../src/model/toasts'
import { clusterView, plan, spec } from './fixtures'

const LIVE: MeshState = { state: 'live', node: 'n', address: '', rttMs: null, role: 'deployer', user: 'ada' }
const { services, instances } = clusterView(0)
const row = services[0] ?? expect.fail('no services in the fixture')

const lost = () => Object.assign(new Error('connection lost'), { code: 'lost' })

/** Replies as a node that accepts everything. The project's name is the file's text. */
function replyTo(request: Request): Reply {
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

/** A session whose node replies with `reply`, or with {@link replyTo} where that returns `null`. */
function sessionWith(reply: (request: Request) => Promise<Reply> | null): Session {
  const request = async (it: Request) => (await reply(it)) ?? replyTo(it)
  return {
    connection: signal(LIVE),
    isLive: signal(true),
    services: signal(services),
    instances: signal(instances),
    mesh: { request } as unknown as Mesh,
  } as unknown as Session
}

const accepting = sessionWith(() => null)
const failing = (op: Request['op'], error: Error) =>
  sessionWith((request) => (request.op === op ? Promise.reject(error) : null))

/** A session whose node replies to a compose request only after `read` of its text. */
function slow() {
  const waiting = new Map<string, () => void>()
  const session = sessionWith((request) => {
    if (request.op !== 'compose') return null
    return new Promise((resolve) => waiting.set(request.text, () => resolve(replyTo(request))))
  })
  const requested = (text: string) => expect.poll(() => waiting.has(text)).toBe(true)
  const read = async (text: string) => {
    await requested(text)
    waiting.get(text)?.()
  }
  return { session, requested, read }
}

const review = (): Review => (step.value.step === 'review' ? step.value.review : expect.fail(`unexpected step '${step.value.step}'`))
const problem = (): string => (step.value.step === 'choose' ? step.value.problem : expect.fail(`unexpected step '${step.value.step}'`))
const file = (name: string, text = name) => new File([text], name)

beforeEach(clearDraft)
afterEach(() => toasts.value.forEach((it) => dismiss(it.id)))

test('of two files dropped in succession the second is reviewed, even if its dry run ends first', async () => {
  const { session, requested, read } = slow()
  const first = loadFile(file('first'), session)
  await requested('first')
  void loadFile(file('second'), session)
  await read('second')
  await expect.poll(() => step.value.step).toBe('review')
  await read('first')
  await first
  expect(review()).toMatchObject({ name: 'second', composed: { project: 'second' } })
  expect(draft.value.text).toBe('second')
})

test('a review keeps the name of its file when the draft changes', async () => {
  await loadFile(file('first'), accepting)
  const first = review()
  draft.value = { ...draft.value, name: 'second' }
  expect(first.name).toBe('first')
})

test('starting over discards a running dry run', async () => {
  const { session, read } = slow()
  const first = loadFile(file('first'), session)
  await read('first')
  startOver()
  await first
  expect(problem()).toBe('')
})

test('a file over the size limit clears the draft, and the error names the limit', async () => {
  await loadFile(file('good.yaml'), accepting)
  await loadFile(file('large.yaml', 'x'.repeat(1024 * 1024 + 1)), accepting)
  expect(problem()).toMatch(/^large\.yaml is too large.*1 MiB/)
  expect(draft.value).toMatchObject({ name: '', text: '' })
})

test('a pasted text over the size limit is not sent, and the draft is kept', async () => {
  const text = 'ä'.repeat(600 * 1024)
  draft.value = { ...draft.value, text }
  await dryRun(sessionWith(() => expect.fail('a request was sent')))
  expect(problem()).toMatch(/^This text is too large.*1 MiB/)
  expect(draft.value.text).toBe(text)
})

test('a connection lost during a deployment is reported as such, and a new dry run starts', async () => {
  await loadFile(file('web'), accepting)
  expect(review().mayBeDeployed).toBe(false)
  await deploy(failing('deploy', lost()), review())
  await expect.poll(() => step.value.step).toBe('review')
  expect(review().mayBeDeployed).toBe(true)
  expect(toasts.value.map((it) => it.text)).toEqual(['The connection to the node was lost before it answered; the deployment may have been applied'])
})

test('a deployment that the node rejects is reported as not applied', async () => {
  await loadFile(file('web'), accepting)
  await deploy(failing('deploy', new Error('no room')), review())
  expect(review().mayBeDeployed).toBe(false)
  expect(toasts.value.map((it) => it.text)).toEqual(['No room'])
})

test('a review omits unrelated unplaced slots, and shows slots that the deployment displaces', async () => {
  await loadFile(file('web'), accepting)
  const slot = (service: string) => ({ service, replica: 1, reasons: [] })
  const moves = [{ service: 'other/loses', replica: 1, from: 'n1', to: null, reason: 'no room' }]
  const all = [row.service, 'other/waits', 'other/loses'].map(slot)
  const { unplaced } = relevantPlan({ ...review(), plan: { ...plan, unplaced: all, moves } })
  expect(unplaced.map((it) => it.service)).toEqual([row.service, 'other/loses'])
})

test('a deployment that cannot be followed is reported as deployed', async () => {
  await loadFile(file('web'), accepting)
  await deploy(failing('inspect', new Error('no such service')), review())
  expect(problem()).toMatch(/^Deployed \(shop\/web updated\).*No such service/)
})

test('a cleared draft is empty', async () => {
  draft.value = { name: 'a.yaml', text: 'PASSWORD: hunter2', project: 'mine' }
  clearDraft()
  expect(draft.value).toEqual({ name: '', text: '', project: '' })
})
