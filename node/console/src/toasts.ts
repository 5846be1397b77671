// What came of actions, in a line each: the node's own words.

import { computed, signal } from '@preact/signals'

import { now } from './state'

export interface Toast {
  id: number
  isError: boolean
  text: string
  at: number
}

/** Good news goes by itself after so many milliseconds; errors stay until they are dismissed. */
const LIFETIME = 12_000
const MAX_TOASTS = 5

const all = signal<Toast[]>([])
let next = 1

/** Those to be seen now. */
export const toasts = computed(() => all.value.filter((it) => it.isError || now.value - it.at < LIFETIME))

export function say(text: string, isError = false): void {
  all.value = [...toasts.value, { id: next++, isError, text, at: Date.now() }].slice(-MAX_TOASTS)
}

export function dismiss(id: number): void {
  all.value = all.value.filter((it) => it.id !== id)
}
