// The confirmation dialog for actions that cannot easily be undone.

import { signal } from '@preact/signals'
import type { ComponentChildren } from 'preact'
import { useEffect } from 'preact/hooks'

import { Modal } from './modal'

interface Confirmation {
  title: string
  body: ComponentChildren
  /** Label of the button that confirms. */
  verb: string
  isDangerous?: boolean
  onConfirm: () => void
}

const current = signal<Confirmation | null>(null)

/** Opens the dialog. */
export function confirm(confirmation: Confirmation): void {
  current.value = confirmation
}

/** Renders the dialog that {@link confirm} opens; mounted once per page. */
export function Confirm() {
  const confirmation = current.value
  // The next user must not confirm for this one.
  useEffect(() => () => void (current.value = null), [])
  // Keyed: a dialog element that was closed would not be opened again for the next confirmation.
  return confirmation && <ConfirmDialog key={confirmation} confirmation={confirmation} />
}

function ConfirmDialog({ confirmation }: { confirmation: Confirmation }) {
  const close = () => {
    if (current.value === confirmation) current.value = null
  }
  return (
    <Modal label={confirmation.title} onClose={close}>
      <h2>{confirmation.title}</h2>
      <div class="dialog-body">{confirmation.body}</div>
      <div class="dialog-foot">
        <button type="button" class="button" onClick={close}>
          Cancel
        </button>
        <button
          type="button"
          class={confirmation.isDangerous ? 'button danger' : 'button primary'}
          onClick={() => {
            close()
            confirmation.onConfirm()
          }}
        >
          {confirmation.verb}
        </button>
      </div>
    </Modal>
  )
}
