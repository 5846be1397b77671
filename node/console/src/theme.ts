// Light or dark: as the system says, unless the user says otherwise.

import { signal } from '@preact/signals'

import { keep, kept } from './kept'

export type Theme = 'system' | 'light' | 'dark'

const KEY = 'vc.theme'
const ORDER: readonly Theme[] = ['system', 'light', 'dark']

export const theme = signal<Theme>(ORDER.find((it) => it === kept('localStorage', KEY)) ?? 'system')

theme.subscribe((value) => {
  if (value === 'system') delete document.documentElement.dataset['theme']
  else document.documentElement.dataset['theme'] = value
  keep('localStorage', KEY, value === 'system' ? null : value)
})

export function nextTheme(): void {
  theme.value = ORDER[(ORDER.indexOf(theme.value) + 1) % ORDER.length] ?? 'system'
}
