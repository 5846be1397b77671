// Light or dark: as the system says, unless the user says otherwise.

import { signal } from '@preact/signals'

export type Theme = 'system' | 'light' | 'dark'

const KEY = 'vc.theme'
const ORDER: readonly Theme[] = ['system', 'light', 'dark']

export const theme = signal<Theme>(ORDER.find((it) => it === localStorage.getItem(KEY)) ?? 'system')

theme.subscribe((value) => {
  if (value === 'system') {
    delete document.documentElement.dataset['theme']
    localStorage.removeItem(KEY)
  } else {
    document.documentElement.dataset['theme'] = value
    localStorage.setItem(KEY, value)
  }
})

export function nextTheme(): void {
  theme.value = ORDER[(ORDER.indexOf(theme.value) + 1) % ORDER.length] ?? 'system'
}
