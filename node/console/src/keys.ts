// The keyboard: one handler for the page, so that a key means one thing.

import { signal } from '@preact/signals'

import { PLACES } from './route'
import { nextTheme } from './theme'

/** Which dialog of the page itself is open. */
export const overlay = signal<'none' | 'keys' | 'palette'>('none')

/** What `?` shows. */
export const KEYS: readonly (readonly [key: string, what: string])[] = [
  ...PLACES.map(({ key, title }) => [key, title] as const),
  ['/', 'Go to a service or view (also Ctrl K)'],
  ['t', 'Theme: system, light, dark'],
  ['?', 'These keys'],
  ['Esc', 'Close what is open'],
]

export function listenToKeys(): () => void {
  const onKey = (event: KeyboardEvent) => {
    const { key } = event
    const isPalette = (event.ctrlKey || event.metaKey) && key.toLowerCase() === 'k'
    const isPlain = !event.ctrlKey && !event.metaKey && !event.altKey && !isTyping(event.target)
    if (document.querySelector('dialog[open]') || !(isPalette || isPlain)) return
    const place = PLACES.find((it) => it.key === key)
    if (isPalette || key === '/') overlay.value = 'palette'
    else if (place) location.hash = place.href
    else if (key === '?') overlay.value = 'keys'
    else if (key === 't') nextTheme()
    else return
    event.preventDefault()
  }
  addEventListener('keydown', onKey)
  return () => removeEventListener('keydown', onKey)
}

function isTyping(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName))
}
