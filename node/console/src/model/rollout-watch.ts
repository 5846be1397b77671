// Watches the rollout of a deployment, and whether another deployment replaces it.

import { computed, effect, signal, type ReadonlySignal } from '@preact/signals'
import type { ComposeProject, ServiceDiff } from 'vc-mesh'

import { revisionsOf, rolloutProgress, type RolloutProgress, type RolloutTarget } from './rollout'
import { callWithRetry } from './rpc'
import type { Session } from './state'

export interface RolloutWatch {
  readonly targets: readonly RolloutTarget[]
  readonly progress: ReadonlySignal<RolloutProgress>
  /** Stops the watch; no more requests are sent. */
  stop(): void
}

/**
 * Watches the rollout of a deployment. A new revision in a row does not say which deployment made it, so each one is
 * followed by a diff request: an empty diff means that the deployment is still in effect.
 */
export function watchRollout(
  session: Session,
  { deployments, files }: ComposeProject,
  targets: readonly RolloutTarget[],
): RolloutWatch {
  // Scaling a service does not replace its deployment.
  const withoutReplicas = deployments.map((it) => ({ ...it, replicas: null }))
  const seen = signal<ReadonlySet<string>>(new Set())
  const checked = signal<{ revisions: string; replaced: ReadonlySet<string> } | null>(null)
  const revisions = computed(() => revisionsOf(targets, session.services.value, seen.value))
  let isStopped = false

  const stopRows = effect(() => {
    const rows = session.services.value
    const present = targets.filter((it) => rows.some((row) => row.service === it.service && row.revision >= it.revision))
    seen.value = new Set([...seen.peek(), ...present.map((it) => it.service)])
  })
  const stopChecks = effect(() => {
    const requested = revisions.value
    if (requested === null || !session.isLive.value || checked.peek()?.revisions === requested) return
    callWithRetry(session, { op: 'diff', deployments: withoutReplicas, files }, 'diff').then(
      (diff) => {
        if (!isStopped && requested === revisions.peek()) checked.value = { revisions: requested, replaced: replacedIn(diff) }
      },
      // Retried with the next revision, and when the connection is back.
      () => {},
    )
  })

  return {
    targets,
    progress: computed(() => {
      const isCurrent = checked.value !== null && checked.value.revisions === revisions.value
      const replaced = isCurrent ? (checked.value?.replaced ?? null) : null
      return rolloutProgress(targets, session.services.value, session.instances.value, { seen: seen.value, replaced })
    }),
    stop() {
      isStopped = true
      stopRows()
      stopChecks()
    },
  }
}

/** Returns the services whose spec differs from the deployed one. A retry of a failed update is not a difference. */
function replacedIn(diff: readonly ServiceDiff[]): ReadonlySet<string> {
  const changed = diff.filter((it) => it.changes.some((line) => !line.startsWith('nothing, but ')))
  return new Set(changed.map((it) => it.service))
}
