// Keyboard shortcuts: one handler for the whole page.

import { signal } from '@preact/signals'

import { NAV_ITEMS } from './route'
import { cycleTheme } from './theme'

/** The page-level dialog that is open. */
export const overlay = signal<'none' | 'shortcuts' | 'palette'>('none')

/** The list that `?` shows. */
export const SHORTCUTS: readonly (readonly [key: string, description: string])[] = [
  ...NAV_ITEMS.map(({ key, title }) => [key, title] as const),
  ['/', 'Go to a service or view (also Ctrl K)'],
  ['t', 'Theme: system, light, dark'],
  ['?', 'Keyboard shortcuts'],
  ['Esc', 'Close the dialog'],
]

/** Installs the handler. Returns a function that removes it. */
export function installShortcuts(): () => void {
  const onKey = (event: KeyboardEvent) => {
    const { key } = event
    const isPalette = (event.ctrlKey || event.metaKey) && key.toLowerCase() === 'k'
    const isPlain = !event.ctrlKey && !event.metaKey && !event.altKey && !isEditable(event.target)
    if (document.querySelector('dialog[open]') || !(isPalette || isPlain)) return
    const item = NAV_ITEMS.find((it) => it.key === key)
    if (isPalette || key === '/') overlay.value = 'palette'
    else if (item) location.hash = item.href
    else if (key === '?') overlay.value = 'shortcuts'
    else if (key === 't') cycleTheme()
    else return
    event.preventDefault()
  }
  addEventListener('keydown', onKey)
  return () => removeEventListener('keydown', onKey)
}

function isEditable(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName))
}
