// A Compose file on its way into the cluster: read by the node, tried dry, deployed, followed.

import { signal } from '@preact/signals'
import type { ComposeProject, Deployment, PlanReport, ServiceDetail, ServiceDiff } from 'vc-mesh'

import { during, messageOf } from './actions'
import { ask, askAgain, isLost } from './ask'
import { changeLine } from './changes'
import { follow, type Following } from './following'
import type { Wanted } from './rollout'
import type { Session } from './state'
import { say } from './toasts'
import { bytes } from './units'

export interface Draft {
  /** The file's name, for people. */
  name: string
  text: string
  /** Empty: as the file says. */
  project: string
}

/** What a deployment would do. */
export interface Review {
  /** The name of the file that it is of; empty: it was pasted. */
  name: string
  composed: ComposeProject
  diff: ServiceDiff[]
  plan: PlanReport
  /** A node was lost while it deployed this: nobody knows whether it did. */
  isInDoubt: boolean
}

export type Step =
  | { step: 'choose'; problem: string }
  | { step: 'reading' }
  | { step: 'review'; review: Review }
  | { step: 'follow'; review: Review; lines: string[]; following: Following }

const NO_DRAFT: Draft = { name: '', text: '', project: '' }

export const draft = signal<Draft>(NO_DRAFT)
export const step = signal<Step>({ step: 'choose', problem: '' })

/** The largest text that is read, bytes: a node takes not much larger ones. */
const MAX_FILE = 1024 * 1024

/** What the user began last. Whatever an earlier one still brings must not be shown as if it were of this. */
let latest = 0

/** What was begun before is over. */
function begin(): number {
  if (step.value.step === 'follow') step.value.following.end()
  return ++latest
}

export async function takeFile(file: File, session: Session): Promise<void> {
  const run = begin()
  step.value = { step: 'reading' }
  try {
    if (file.size > MAX_FILE) throw tooLarge(file.name)
    const text = await file.text()
    if (run !== latest) return
    draft.value = { ...draft.value, name: file.name, text }
  } catch (error) {
    if (run !== latest) return
    // What was there before is not what the problem is about.
    draft.value = { ...draft.value, name: '', text: '' }
    step.value = { step: 'choose', problem: messageOf(error) }
    return
  }
  await tryDry(session)
}

/** Asks the node what the draft would change. Viewer. */
export async function tryDry(session: Session, isInDoubt = false): Promise<void> {
  const run = begin()
  step.value = { step: 'reading' }
  const { name, text, project } = draft.value
  let next: Step
  try {
    if (new Blob([text]).size > MAX_FILE) throw tooLarge(name || 'this text')
    const composed = await askAgain(session, { op: 'compose', text, project: project.trim() || null }, 'composed')
    const { deployments, files } = composed
    const [diff, plan] = await Promise.all([
      askAgain(session, { op: 'diff', deployments, files }, 'diff'),
      askAgain(session, { op: 'plan', deployments }, 'plan'),
    ])
    next = { step: 'review', review: { name, composed, diff, plan, isInDoubt } }
  } catch (error) {
    next = { step: 'choose', problem: messageOf(error) }
  }
  if (run === latest) step.value = next
}

const tooLarge = (what: string) => new Error(`${what} is too large for a Compose file: it may have ${bytes(MAX_FILE)}`)

/** What of its plan a review is about: its own services, and what of others gives way. */
export function concerned({ composed, plan }: Review): PlanReport {
  const own = new Set(composed.deployments.map((it) => it.service))
  const isConcerned = (row: { service: string; replica: number }) =>
    own.has(row.service) || plan.moves.some((it) => it.service === row.service && it.replica === row.replica)
  return { ...plan, placements: plan.placements.filter(isConcerned), unplaced: plan.unplaced.filter(isConcerned) }
}

export const DEPLOYING = 'deploy'

/** Deploys what was reviewed, and begins to follow it. */
export async function deploy(session: Session, review: Review): Promise<void> {
  const run = begin()
  await during(DEPLOYING, async () => {
    const { deployments, files } = review.composed
    let lines: string[]
    try {
      lines = (await ask(session, { op: 'deploy', deployments, files }, 'done')).map(changeLine)
    } catch (error) {
      if (!isLost(error)) throw error
      // Only what the nodes say now tells whether it happened.
      if (run === latest) void tryDry(session, true)
      throw new Error('the node was lost before it answered; it may have deployed this', { cause: error })
    }
    const next = await followed(session, review, lines)
    if (run === latest) step.value = next()
    // The user is somewhere else already.
    else say(lines.join('; '))
  })
}

/** What comes after a deployment: it has happened, whatever goes wrong from here on. */
async function followed(session: Session, review: Review, lines: string[]): Promise<() => Step> {
  const { composed } = review
  try {
    const inspected = composed.deployments.map(({ service }) => askAgain(session, { op: 'inspect', service }, 'service'))
    const wanted = (await Promise.all(inspected)).map(wantedOf)
    return () => ({ step: 'follow', review, lines, following: follow(session, composed, wanted) })
  } catch (error) {
    const problem = `It is deployed (${lines.join('; ')}), but cannot be followed: ${messageOf(error)}`
    return () => ({ step: 'choose', problem })
  }
}

function wantedOf({ row, spec }: ServiceDetail): Wanted {
  return { service: row.service, replicas: row.replicas, updated: row.updated, checked: isChecked(spec) }
}

export function startOver(): void {
  begin()
  step.value = { step: 'choose', problem: '' }
}

/** Leaves nothing for whoever uses this tab next. */
export function forgetDraft(): void {
  draft.value = NO_DRAFT
  startOver()
}

/** A healthcheck whose test is `NONE` only takes the image's away. */
function isChecked(spec: Deployment['spec']): boolean {
  const check = spec.container['healthcheck'] as { test?: string[] } | null | undefined
  const kind = check?.test?.[0]
  return kind !== undefined && kind !== 'NONE'
}
