// Changes that users request. An action counts as done only when the node has confirmed it.

import { signal } from '@preact/signals'
import type { Request } from 'vc-mesh'

import { changeLine } from './changes'
import { call } from './rpc'
import type { Session } from './state'
import { showToast } from './toasts'

/** Subjects of the actions in progress: a service, `node ID`, … */
const pending = signal<ReadonlySet<string>>(new Set())

export function isPending(subject: string): boolean {
  return pending.value.has(subject)
}

/** Sends a mutation and shows the changes it made in a toast. Returns whether it succeeded. */
export async function perform(session: Session, subject: string, request: Request): Promise<boolean> {
  return trackPending(subject, async () => {
    const changes = await call(session, request, 'done')
    showToast(changes.map(changeLine).join('; ') || 'Nothing to change.')
  })
}

/** Marks `subject` as pending while `work` runs, and shows its error in a toast. Returns whether it succeeded. */
export async function trackPending(subject: string, work: () => Promise<void>): Promise<boolean> {
  pending.value = new Set(pending.value).add(subject)
  try {
    await work()
    return true
  } catch (error) {
    showToast(errorMessage(error), true)
    return false
  } finally {
    const remaining = new Set(pending.value)
    remaining.delete(subject)
    pending.value = remaining
  }
}

/** Returns the message of an error with its first letter capitalized, unless it starts with a key, a path or a service. */
export function errorMessage(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error)
  if (/^\S*[./]\S/.test(text)) return text
  return text.charAt(0).toUpperCase() + text.slice(1)
}
