// A button that changes the cluster.

import type { ComponentChildren } from 'preact'
import { useId } from 'preact/hooks'
import type { UserRole } from 'vc-mesh'

import { isPending } from '../actions'
import { hindrance, useSession } from '../state'

interface ActProps {
  needs: UserRole
  /** What it is about: while something is under way about it, the button waits. */
  subject: string
  onAct: () => void
  children: ComponentChildren
  /** More words for those who do not see where the button stands. */
  label?: string
  class?: string
  /** Why it cannot be pressed, beside role and connection; empty: it can. */
  because?: string
}

/** What cannot be done stays visible and reachable, and says why not. */
export function Act({ needs, subject, onAct, children, label, because = '', class: kind = 'button' }: ActProps) {
  const session = useSession()
  const id = useId()
  const waits = isPending(subject)
  const reason = hindrance(session, needs) || because
  const isOff = reason !== '' || waits
  return (
    <>
      <button
        type="button"
        class={kind}
        aria-label={label}
        aria-disabled={isOff}
        aria-busy={waits}
        aria-describedby={reason ? id : undefined}
        title={reason || undefined}
        onClick={() => {
          if (!isOff) onAct()
        }}
      >
        {children}
      </button>
      {reason && (
        <span id={id} class="unseen">
          {reason}
        </span>
      )}
    </>
  )
}
