import type { ComponentChildren } from 'preact'
import { useLayoutEffect, useRef } from 'preact/hooks'

interface ModalProps {
  label: string
  onClose: () => void
  children: ComponentChildren
  class?: string
}

/** A modal dialog, open while mounted. The browser traps the focus in it and restores it on close. */
export function Modal({ label, onClose, children, class: kind = '' }: ModalProps) {
  const dialog = useRef<HTMLDialogElement>(null)
  const isUnmounted = useRef(false)
  // A layout effect, so that the next key press goes to the dialog.
  useLayoutEffect(() => {
    const element = dialog.current
    element?.showModal()
    return () => {
      // The close event is asynchronous: by then another dialog may be open.
      isUnmounted.current = true
      element?.close()
    }
  }, [])
  return (
    <dialog
      ref={dialog}
      class={kind}
      aria-label={label}
      onClose={() => {
        if (!isUnmounted.current) onClose()
      }}
      onClick={(event) => {
        // Clicks on the backdrop have the dialog itself as their target.
        if (event.target === dialog.current) onClose()
      }}
    >
      <div class="dialog-box">{children}</div>
    </dialog>
  )
}
