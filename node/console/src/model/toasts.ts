// Notifications about the results of actions.

import { computed, signal } from '@preact/signals'

import { now } from './state'

export interface Toast {
  id: number
  isError: boolean
  text: string
  /** Milliseconds since the epoch. */
  at: number
}

/** Milliseconds until a success notification disappears. Errors stay until dismissed. */
const LIFETIME = 12_000
/** Notifications shown, at most; the oldest are dropped. */
const MAX_TOASTS = 5

const all = signal<Toast[]>([])
let next = 1

/** The notifications that are shown now. */
export const toasts = computed(() => all.value.filter((it) => it.isError || now.value - it.at < LIFETIME))

export function showToast(text: string, isError = false): void {
  all.value = [...toasts.value, { id: next++, isError, text, at: Date.now() }].slice(-MAX_TOASTS)
}

export function dismiss(id: number): void {
  all.value = all.value.filter((it) => it.id !== id)
}
