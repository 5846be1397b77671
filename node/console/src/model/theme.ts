// The colour theme: that of the system, or the user's choice.

import { signal } from '@preact/signals'

import { readItem, writeItem } from './storage'

export type Theme = 'system' | 'light' | 'dark'

const KEY = 'vc.theme'
const ORDER: readonly Theme[] = ['system', 'light', 'dark']

export const theme = signal<Theme>(ORDER.find((it) => it === readItem('localStorage', KEY)) ?? 'system')

theme.subscribe((value) => {
  if (value === 'system') delete document.documentElement.dataset['theme']
  else document.documentElement.dataset['theme'] = value
  writeItem('localStorage', KEY, value === 'system' ? null : value)
})

/** Switches to the next theme: system, light, dark. */
export function cycleTheme(): void {
  theme.value = ORDER[(ORDER.indexOf(theme.value) + 1) % ORDER.length] ?? 'system'
}
