import { signal } from '@preact/signals'
import { expect, test } from 'vitest'
import type { ComposeProject, Mesh, MeshState, Request, ServiceRow } from 'vc-mesh'

import { follow } from '../src/following'
import type { Wanted } from '../src/rollout'
import type { Session } from '../src/state'
import { scene, spec } from './scene'

const LIVE: MeshState = { state: 'live', node: 'n', address: '', rttMs: null, role: 'deployer', user: 'ada' }
const [template] = scene(0).services
if (!template) throw new Error('the scene has services')

const rows = (updated: number, replicas = 0): ServiceRow[] => [
  { ...template, replicas, updated, rollout: { state: 'complete', done: 0, reason: '' } },
]
const wanted: Wanted[] = [{ service: template.service, replicas: 0, updated: 10, checked: false }]
const composed: ComposeProject = {
  project: template.project,
  deployments: [{ service: template.service, replicas: 0, spec }],
  files: [],
  warnings: [],
}

/** A deployment that is followed on a node; `changes`: what would change if it were made again. */
function followed() {
  const changes: string[] = []
  const asked: Request[] = []
  const services = signal(rows(9))
  const request = async (it: Request) => {
    asked.push(it)
    return { reply: 'diff', value: changes.length > 0 ? [{ service: template?.service, created: false, changes }] : [] }
  }
  const session = { link: signal(LIVE), isLive: signal(true), services, instances: signal([]), mesh: { request } as unknown as Mesh }
  const following = follow(session as unknown as Session, composed, wanted)
  return { following, services, changes, asked, state: () => following.standing.value.verdict.state }
}

test('a deployment that another overwrites is not taken for settled, though everything runs', async () => {
  const { services, changes, state } = followed()
  services.value = rows(10)
  await expect.poll(state).toBe('settled')
  changes.push('container.image: "mine" -> "theirs"')
  services.value = rows(11)
  expect(state(), 'whose revision this is has to be asked first').toBe('waiting')
  await expect.poll(state).toBe('over')
})

test('a restart or another number of replicas does not replace a deployment', async () => {
  const { services, asked, state } = followed()
  services.value = rows(12, 0)
  await expect.poll(state).toBe('settled')
  expect(asked).toMatchObject([{ op: 'diff', deployments: [{ replicas: null }] }])
})

test('what has failed and could be tried again is still the same', async () => {
  const { services, changes, state } = followed()
  changes.push('nothing, but it failed and is tried again')
  services.value = rows(10)
  await expect.poll(state).toBe('settled')
})

test('a node that has not heard of the deployment is not asked, and one that lost the service ends it', async () => {
  const { services, asked, state } = followed()
  services.value = []
  expect(state()).toBe('waiting')
  expect(asked).toEqual([])
  services.value = rows(10)
  await expect.poll(state).toBe('settled')
  services.value = []
  expect(state()).toBe('over')
})

test('nobody is asked once it is let go', () => {
  const { following, services, asked } = followed()
  following.end()
  services.value = rows(10)
  expect(asked).toEqual([])
})
