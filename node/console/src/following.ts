// A deployment from when the node took it: how far it is, and whether it is still what is deployed.

import { computed, effect, signal, type ReadonlySignal } from '@preact/signals'
import type { ComposeProject, ServiceDiff } from 'vc-mesh'

import { askAgain } from './ask'
import { revisionsOf, standing, type Standing, type Wanted } from './rollout'
import type { Session } from './state'

export interface Following {
  readonly wanted: readonly Wanted[]
  readonly standing: ReadonlySignal<Standing>
  /** Nobody is asked any more. */
  end(): void
}

/**
 * Follows what was deployed. Rows say that a service has another revision, not whose: so the node is asked whether what
 * was deployed would still change anything.
 */
export function follow(session: Session, { deployments, files }: ComposeProject, wanted: readonly Wanted[]): Following {
  // How many are wanted is no part of it: whoever scales a service does not replace it.
  const same = deployments.map((it) => ({ ...it, replicas: null }))
  const seen = signal<ReadonlySet<string>>(new Set())
  const answered = signal<{ revisions: string; replaced: ReadonlySet<string> } | null>(null)
  const revisions = computed(() => revisionsOf(wanted, session.services.value, seen.value))
  let isEnded = false

  const offRows = effect(() => {
    const rows = session.services.value
    const held = wanted.filter((it) => rows.some((row) => row.service === it.service && row.updated >= it.updated))
    seen.value = new Set([...seen.peek(), ...held.map((it) => it.service)])
  })
  const offRevisions = effect(() => {
    const asked = revisions.value
    if (asked === null || !session.isLive.value || answered.peek()?.revisions === asked) return
    askAgain(session, { op: 'diff', deployments: same, files }, 'diff').then(
      (diff) => {
        if (!isEnded && asked === revisions.peek()) answered.value = { revisions: asked, replaced: replacedIn(diff) }
      },
      // Asked again with the next revision, or when a node is there again.
      () => {},
    )
  })

  return {
    wanted,
    standing: computed(() => {
      const isKnown = answered.value !== null && answered.value.revisions === revisions.value
      const replaced = isKnown ? (answered.value?.replaced ?? null) : null
      return standing(wanted, session.services.value, session.instances.value, { seen: seen.value, replaced })
    }),
    end() {
      isEnded = true
      offRows()
      offRevisions()
    },
  }
}

/** Those that are not as they were deployed. One that has failed could be tried again, and is the same. */
function replacedIn(diff: readonly ServiceDiff[]): ReadonlySet<string> {
  const other = diff.filter((it) => it.changes.some((line) => !line.startsWith('nothing, but ')))
  return new Set(other.map((it) => it.service))
}
