// The dialog that asks before something is done that cannot simply be undone.

import { signal } from '@preact/signals'
import type { ComponentChildren } from 'preact'
import { useEffect, useLayoutEffect, useRef } from 'preact/hooks'

interface Question {
  title: string
  body: ComponentChildren
  /** What the button says that does it. */
  verb: string
  isDangerous?: boolean
  onYes: () => void
}

const asked = signal<Question | null>(null)

export function confirm(question: Question): void {
  asked.value = question
}

/** The one dialog of the page for questions. */
export function Confirm() {
  const question = asked.value
  // It was asked of whoever was here.
  useEffect(() => () => void (asked.value = null), [])
  // Another question has another dialog, even if the one before has just been closed: it would not be opened again.
  return question && <ConfirmDialog key={question} question={question} />
}

function ConfirmDialog({ question }: { question: Question }) {
  const close = () => {
    if (asked.value === question) asked.value = null
  }
  return (
    <Modal label={question.title} onClose={close}>
      <h2>{question.title}</h2>
      <div class="dialog-body">{question.body}</div>
      <div class="dialog-foot">
        <button type="button" class="button" onClick={close}>
          Cancel
        </button>
        <button
          type="button"
          class={question.isDangerous ? 'button danger' : 'button primary'}
          onClick={() => {
            close()
            question.onYes()
          }}
        >
          {question.verb}
        </button>
      </div>
    </Modal>
  )
}

interface ModalProps {
  label: string
  onClose: () => void
  children: ComponentChildren
  class?: string
}

/** A dialog that is open as long as it is there. The browser keeps the focus in it and gives it back. */
export function Modal({ label, onClose, children, class: kind = '' }: ModalProps) {
  const dialog = useRef<HTMLDialogElement>(null)
  const isGone = useRef(false)
  // At once, so that the next key goes into it.
  useLayoutEffect(() => {
    const element = dialog.current
    element?.showModal()
    return () => {
      // Its event comes later, when something else may be open.
      isGone.current = true
      element?.close()
    }
  }, [])
  return (
    <dialog
      ref={dialog}
      class={kind}
      aria-label={label}
      onClose={() => {
        if (!isGone.current) onClose()
      }}
      onClick={(event) => {
        // A click beside it: on its backdrop, which belongs to the element itself.
        if (event.target === dialog.current) onClose()
      }}
    >
      <div class="dialog-box">{children}</div>
    </dialog>
  )
}
