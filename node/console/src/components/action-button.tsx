// A button for an action on the cluster.

import type { ComponentChildren } from 'preact'
import { useId } from 'preact/hooks'
import type { UserRole } from 'vc-mesh'

import { isPending } from '../model/actions'
import { unavailableReason, useSession } from '../model/state'

interface ActionButtonProps {
  /** The role that the action requires. */
  role: UserRole
  /** What the action changes: the button is disabled while an action on the same subject is pending. */
  subject: string
  onPress: () => void
  children: ComponentChildren
  /** Accessible name, where the text alone does not name the subject. */
  label?: string
  class?: string
  /** Why the action is not possible, beside role and connection; empty if it is. */
  disabledReason?: string
}

/** Renders a button. When disabled it stays focusable (`aria-disabled`) and is described by the reason. */
export function ActionButton(props: ActionButtonProps) {
  const { role, subject, onPress, children, label, disabledReason = '', class: kind = 'button' } = props
  const session = useSession()
  const id = useId()
  const isBusy = isPending(subject)
  const reason = unavailableReason(session, role) || disabledReason
  const isDisabled = reason !== '' || isBusy
  return (
    <>
      <button
        type="button"
        class={kind}
        aria-label={label}
        aria-disabled={isDisabled}
        aria-busy={isBusy}
        aria-describedby={reason ? id : undefined}
        title={reason || undefined}
        onClick={() => {
          if (!isDisabled) onPress()
        }}
      >
        {children}
      </button>
      {reason && (
        <span id={id} class="visually-hidden">
          {reason}
        </span>
      )}
    </>
  )
}
