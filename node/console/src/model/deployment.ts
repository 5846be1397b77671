// The deployment of a Compose file: parsed by the node, dry run, review, deployment, rollout.

import { signal } from '@preact/signals'
import type { ComposeProject, Deployment, PlanReport, ServiceDetail, ServiceDiff } from 'vc-mesh'

import { errorMessage, trackPending } from './actions'
import { changeLine } from './changes'
import type { RolloutTarget } from './rollout'
import { type RolloutWatch, watchRollout } from './rollout-watch'
import { call, callWithRetry, isConnectionLost } from './rpc'
import type { Session } from './state'
import { showToast } from './toasts'
import { bytes } from './units'

export interface Draft {
  /** The file's name; empty for pasted text. */
  name: string
  text: string
  /** The project's name; empty to use the one in the file. */
  project: string
}

/** The result of a dry run. */
export interface Review {
  /** The file's name; empty for pasted text. */
  name: string
  composed: ComposeProject
  diff: ServiceDiff[]
  plan: PlanReport
  /** The connection was lost during an earlier deployment of this draft, which may have been applied. */
  mayBeDeployed: boolean
}

export type Step =
  | { step: 'choose'; problem: string }
  | { step: 'reading' }
  | { step: 'review'; review: Review }
  | { step: 'follow'; review: Review; lines: string[]; rollout: RolloutWatch }

const EMPTY_DRAFT: Draft = { name: '', text: '', project: '' }

export const draft = signal<Draft>(EMPTY_DRAFT)
export const step = signal<Step>({ step: 'choose', problem: '' })

/** The largest Compose file, bytes. Nodes limit requests to little more. */
const MAX_FILE_BYTES = 1024 * 1024

/** Number of the latest operation: results of earlier ones are discarded. */
let latest = 0

/** Starts an operation and supersedes the one before. Returns its number. */
function begin(): number {
  if (step.value.step === 'follow') step.value.rollout.stop()
  return ++latest
}

/** Reads a file into the draft and starts a dry run. */
export async function loadFile(file: File, session: Session): Promise<void> {
  const operation = begin()
  step.value = { step: 'reading' }
  try {
    if (file.size > MAX_FILE_BYTES) throw tooLarge(file.name)
    const text = await file.text()
    if (operation !== latest) return
    draft.value = { ...draft.value, name: file.name, text }
  } catch (error) {
    if (operation !== latest) return
    // The error concerns the new file: do not show it beside the old one.
    draft.value = { ...draft.value, name: '', text: '' }
    step.value = { step: 'choose', problem: errorMessage(error) }
    return
  }
  await dryRun(session)
}

/** Asks the node what the draft would change. Requires the role viewer. */
export async function dryRun(session: Session, mayBeDeployed = false): Promise<void> {
  const operation = begin()
  step.value = { step: 'reading' }
  const { name, text, project } = draft.value
  let next: Step
  try {
    if (new Blob([text]).size > MAX_FILE_BYTES) throw tooLarge(name || 'this text')
    const composed = await callWithRetry(session, { op: 'compose', text, project: project.trim() || null }, 'composed')
    const { deployments, files } = composed
    const [diff, plan] = await Promise.all([
      callWithRetry(session, { op: 'diff', deployments, files }, 'diff'),
      callWithRetry(session, { op: 'plan', deployments }, 'plan'),
    ])
    next = { step: 'review', review: { name, composed, diff, plan, mayBeDeployed } }
  } catch (error) {
    next = { step: 'choose', problem: errorMessage(error) }
  }
  if (operation === latest) step.value = next
}

const tooLarge = (what: string) => new Error(`${what} is too large for a Compose file; the limit is ${bytes(MAX_FILE_BYTES)}`)

/** Returns the part of the plan that a review shows: slots of the deployed services, and slots of others that move or stop. */
export function relevantPlan({ composed, plan }: Review): PlanReport {
  const own = new Set(composed.deployments.map((it) => it.service))
  const isRelevant = (row: { service: string; replica: number }) =>
    own.has(row.service) || plan.moves.some((it) => it.service === row.service && it.replica === row.replica)
  return { ...plan, placements: plan.placements.filter(isRelevant), unplaced: plan.unplaced.filter(isRelevant) }
}

/** The subject of a deployment while it is pending. */
export const DEPLOY_ACTION = 'deploy'

/** Deploys the reviewed services and starts to watch the rollout. */
export async function deploy(session: Session, review: Review): Promise<void> {
  const operation = begin()
  await trackPending(DEPLOY_ACTION, async () => {
    const { deployments, files } = review.composed
    let lines: string[]
    try {
      lines = (await call(session, { op: 'deploy', deployments, files }, 'done')).map(changeLine)
    } catch (error) {
      if (!isConnectionLost(error)) throw error
      // A new dry run shows whether it was applied.
      if (operation === latest) void dryRun(session, true)
      throw new Error('the connection to the node was lost before it answered; the deployment may have been applied', { cause: error })
    }
    const next = await stepAfterDeploy(session, review, lines)
    if (operation === latest) step.value = next()
    // The user has started something else.
    else showToast(lines.join('; '))
  })
}

/** Returns a function that makes the step after a successful deployment, so that a discarded one starts no watch. */
async function stepAfterDeploy(session: Session, review: Review, lines: string[]): Promise<() => Step> {
  const { composed } = review
  try {
    const inspected = composed.deployments.map(({ service }) => callWithRetry(session, { op: 'inspect', service }, 'service'))
    const targets = (await Promise.all(inspected)).map(targetOf)
    return () => ({ step: 'follow', review, lines, rollout: watchRollout(session, composed, targets) })
  } catch (error) {
    const problem = `Deployed (${lines.join('; ')}), but the rollout cannot be followed: ${errorMessage(error)}`
    return () => ({ step: 'choose', problem })
  }
}

function targetOf({ row, spec }: ServiceDetail): RolloutTarget {
  return { service: row.service, replicas: row.replicas, revision: row.revision, hasHealthcheck: hasHealthcheck(spec) }
}

export function startOver(): void {
  begin()
  step.value = { step: 'choose', problem: '' }
}

/** Clears the draft, so that the next user of this tab does not see it. */
export function clearDraft(): void {
  draft.value = EMPTY_DRAFT
  startOver()
}

/** Returns whether a spec has a healthcheck: the test `NONE` disables that of the image. */
function hasHealthcheck(spec: Deployment['spec']): boolean {
  const check = spec.container['healthcheck'] as { test?: string[] } | null | undefined
  const kind = check?.test?.[0]
  return kind !== undefined && kind !== 'NONE'
}
