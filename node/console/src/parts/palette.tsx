// Go anywhere by typing some of its name.

import { useSignal } from '@preact/signals'

import { overlay } from '../keys'
import { logsHref, PLACES, serviceHref } from '../route'
import { useSession, type Session } from '../state'
import { Modal } from './confirm'

interface Target {
  title: string
  kind: string
  href: string
}

/** So many are offered. */
const MAX_OFFERED = 10

export function Palette() {
  const session = useSession()
  const text = useSignal('')
  const chosen = useSignal(0)
  const offered = find(targets(session), text.value).slice(0, MAX_OFFERED)
  const at = Math.min(chosen.value, offered.length - 1)
  const close = () => (overlay.value = 'none')
  const go = (target: Target | undefined) => {
    if (!target) return
    close()
    location.hash = target.href
  }
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === 'ArrowDown') chosen.value = Math.min(at + 1, offered.length - 1)
    else if (event.key === 'ArrowUp') chosen.value = Math.max(at - 1, 0)
    else if (event.key === 'Enter') go(offered[at])
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
        aria-activedescendant={offered[at] && `palette-${at}`}
        autocomplete="off"
        spellcheck={false}
        placeholder="Service or view"
        value={text.value}
        onInput={(event) => {
          text.value = event.currentTarget.value
          chosen.value = 0
        }}
        onKeyDown={onKeyDown}
      />
      <ul id="palette-list" role="listbox" aria-label="Places">
        {offered.map((target, index) => (
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
      {offered.length === 0 && <p class="quiet">Nothing is called that.</p>}
    </Modal>
  )
}

function targets(session: Session): Target[] {
  const services = session.services.value.map((row) => row.service)
  return [
    ...PLACES.map(({ title, href }) => ({ title, kind: 'view', href })),
    ...services.map((it) => ({ title: it, kind: 'service', href: serviceHref(it) })),
    ...services.map((it) => ({ title: it, kind: 'logs', href: logsHref(it) })),
  ]
}

/** Every word is to be found; what begins with the text comes first. */
function find(all: readonly Target[], text: string): Target[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean)
  const found = all.filter((it) => words.every((word) => `${it.title} ${it.kind}`.toLowerCase().includes(word)))
  const begins = (it: Target) => Number(it.title.toLowerCase().startsWith(words[0] ?? ''))
  return found.toSorted((a, b) => begins(b) - begins(a))
}
