import { signal } from '@preact/signals'
import { expect, test } from 'vitest'
import type { ComposeProject, Mesh, MeshState, Request, ServiceRow } from 'vc-mesh'

import type { RolloutTarget } from '../src/model/rollout'
import { watchRollout } from '../src/model/rollout-watch'
import type { Session } from '../src/model/state'
import { clusterView, spec } from './fixtures'

const LIVE: MeshState = { state: 'live', node: 'n', address: '', rttMs: null, role: 'deployer', user: 'ada' }
const [template] = clusterView(0).services
if (!template) throw new Error('no services in the fixture')

const rows = (revision: number, replicas = 0): ServiceRow[] => [
  { ...template, replicas, revision, rollout: { state: 'complete', done: 0, reason: '' } },
]
const targets: RolloutTarget[] = [{ service: template.service, replicas: 0, revision: 10, hasHealthcheck: false }]
const composed: ComposeProject = {
  project: template.project,
  deployments: [{ service: template.service, replicas: 0, spec }],
  files: [],
  warnings: [],
}

/** Watches a deployment. Adding to `changes` makes the node report that another deployment has replaced it. */
function watched() {
  const changes: string[] = []
  const requests: Request[] = []
  const services = signal(rows(9))
  const request = async (it: Request) => {
    requests.push(it)
    return { reply: 'diff', value: changes.length > 0 ? [{ service: template?.service, created: false, changes }] : [] }
  }
  const session = { connection: signal(LIVE), isLive: signal(true), services, instances: signal([]), mesh: { request } as unknown as Mesh }
  const watch = watchRollout(session as unknown as Session, composed, targets)
  return { watch, services, changes, requests, state: () => watch.progress.value.result.state }
}

test('a deployment that another has replaced ends, even if all instances are available', async () => {
  const { services, changes, state } = watched()
  services.value = rows(10)
  await expect.poll(state).toBe('available')
  changes.push('container.image: "mine" -> "theirs"')
  services.value = rows(11)
  expect(state(), 'the new revision is checked first').toBe('waiting')
  await expect.poll(state).toBe('ended')
})

test('restarting or scaling does not replace a deployment', async () => {
  const { services, requests, state } = watched()
  services.value = rows(12, 0)
  await expect.poll(state).toBe('available')
  expect(requests).toMatchObject([{ op: 'diff', deployments: [{ replicas: null }] }])
})

test('a failed update that could be retried is not a replacement', async () => {
  const { services, changes, state } = watched()
  changes.push('nothing, but it failed and is tried again')
  services.value = rows(10)
  await expect.poll(state).toBe('available')
})

test('a view without the deployment sends no request, and a removed service ends the watch', async () => {
  const { services, requests, state } = watched()
  services.value = []
  expect(state()).toBe('waiting')
  expect(requests).toEqual([])
  services.value = rows(10)
  await expect.poll(state).toBe('available')
  services.value = []
  expect(state()).toBe('ended')
})

test('a stopped watch sends no requests', () => {
  const { watch, services, requests } = watched()
  watch.stop()
  services.value = rows(10)
  expect(requests).toEqual([])
})
