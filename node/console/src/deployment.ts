// A Compose file on its way into the cluster: read by the node, tried dry, deployed, followed.

import { signal } from '@preact/signals'
import type { Composed, Deployment, PlanReport, ServiceDiff } from 'vc-mesh'

import { during, messageOf } from './actions'
import { ask, askAgain } from './ask'
import type { Wanted } from './rollout'
import type { Session } from './state'

export interface Draft {
  /** The file's name, for people. */
  name: string
  text: string
  /** Empty: as the file says. */
  project: string
}

/** What a deployment would do. */
export interface Review {
  composed: Composed
  diff: ServiceDiff[]
  plan: PlanReport
}

export type Step =
  | { step: 'choose'; problem: string }
  | { step: 'reading' }
  | { step: 'review'; review: Review }
  | { step: 'follow'; review: Review; lines: string[]; wanted: Wanted[] }

export const draft = signal<Draft>({ name: '', text: '', project: '' })
export const step = signal<Step>({ step: 'choose', problem: '' })

/** The largest file that is read: a node takes no larger one either. */
const MAX_FILE = 1024 * 1024

export async function takeFile(file: File, session: Session): Promise<void> {
  if (file.size > MAX_FILE) {
    step.value = { step: 'choose', problem: `${file.name} is too large for a Compose file` }
    return
  }
  draft.value = { ...draft.value, name: file.name, text: await file.text() }
  await tryDry(session)
}

/** Asks the node what the draft would change. Viewer. */
export async function tryDry(session: Session): Promise<void> {
  step.value = { step: 'reading' }
  const { text, project } = draft.value
  try {
    const composed = await askAgain(session, { op: 'compose', text, project: project.trim() || null }, 'composed')
    const { deployments, files } = composed
    const [diff, plan] = await Promise.all([
      askAgain(session, { op: 'diff', deployments, files }, 'diff'),
      askAgain(session, { op: 'plan', deployments }, 'plan'),
    ])
    step.value = { step: 'review', review: { composed, diff, plan } }
  } catch (error) {
    step.value = { step: 'choose', problem: messageOf(error) }
  }
}

export const DEPLOYING = 'deploy'

/** Deploys what was reviewed, and begins to follow it. */
export async function deploy(session: Session, review: Review): Promise<void> {
  await during(DEPLOYING, async () => {
    const { deployments, files } = review.composed
    const lines = await ask(session, { op: 'deploy', deployments, files }, 'done')
    const details = await Promise.all(deployments.map(({ service }) => askAgain(session, { op: 'inspect', service }, 'service')))
    const wanted = details.map(({ row, spec }) => ({
      service: row.service,
      replicas: row.replicas,
      updated: row.updated,
      checked: isChecked(spec),
    }))
    step.value = { step: 'follow', review, lines, wanted }
  })
}

export function startOver(): void {
  step.value = { step: 'choose', problem: '' }
}

/** A healthcheck whose test is `NONE` only takes the image's away. */
function isChecked(spec: Deployment['spec']): boolean {
  const check = spec.container['healthcheck'] as { test?: string[] } | null | undefined
  const kind = check?.test?.[0]
  return kind !== undefined && kind !== 'NONE'
}
