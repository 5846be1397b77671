// The command palette: go to a view or service by typing a part of its name.

import { useSignal } from '@preact/signals'

import { logsHref, NAV_ITEMS, serviceHref } from '../model/route'
import { overlay } from '../model/shortcuts'
import { type Session, useSession } from '../model/state'
import { Modal } from './modal'

interface Target {
  title: string
  kind: string
  href: string
}

/** Results shown, at most. */
const MAX_RESULTS = 10

export function CommandPalette() {
  const session = useSession()
  const text = useSignal('')
  const selected = useSignal(0)
  const results = search(targets(session), text.value).slice(0, MAX_RESULTS)
  const at = Math.min(selected.value, results.length - 1)
  const close = () => (overlay.value = 'none')
  const go = (target: Target | undefined) => {
    if (!target) return
    close()
    location.hash = target.href
  }
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === 'ArrowDown') selected.value = Math.min(at + 1, results.length - 1)
    else if (event.key === 'ArrowUp') selected.value = Math.max(at - 1, 0)
    else if (event.key === 'Enter') go(results[at])
    else return
    event.preventDefault()
  }
  return (
    <Modal label="Go to" onClose={close} class="palette">
      <input
        type="text"
        role="combobox"
        aria-label="Go to"
        aria-expanded="true"
        aria-controls="palette-list"
        aria-activedescendant={results[at] && `palette-${at}`}
        autocomplete="off"
        spellcheck={false}
        placeholder="Service or view"
        value={text.value}
        onInput={(event) => {
          text.value = event.currentTarget.value
          selected.value = 0
        }}
        onKeyDown={onKeyDown}
      />
      <ul id="palette-list" role="listbox" aria-label="Results">
        {results.map((target, index) => (
          <li
            key={target.href}
            id={`palette-${index}`}
            role="option"
            aria-selected={index === at}
            onClick={() => go(target)}
          >
            {target.title} <span class="quiet">{target.kind}</span>
          </li>
        ))}
      </ul>
      {results.length === 0 && <p class="quiet">No matches.</p>}
    </Modal>
  )
}

function targets(session: Session): Target[] {
  const services = session.services.value.map((row) => row.service)
  return [
    ...NAV_ITEMS.map(({ title, href }) => ({ title, kind: 'view', href })),
    ...services.map((it) => ({ title: it, kind: 'service', href: serviceHref(it) })),
    ...services.map((it) => ({ title: it, kind: 'logs', href: logsHref(it) })),
  ]
}

/** Returns the targets that contain every word of `text`, those that start with its first word first. */
function search(all: readonly Target[], text: string): Target[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean)
  const found = all.filter((it) => words.every((word) => `${it.title} ${it.kind}`.toLowerCase().includes(word)))
  const isPrefix = (it: Target) => Number(it.title.toLowerCase().startsWith(words[0] ?? ''))
  return found.toSorted((a, b) => isPrefix(b) - isPrefix(a))
}
