// What users do to the cluster. Nothing is taken for done before the node says so.

import { signal } from '@preact/signals'
import type { Request } from 'vc-mesh'

import { ask } from './ask'
import { changeLine } from './changes'
import type { Session } from './state'
import { say } from './toasts'

/** Actions under way, by what they are about. */
const pending = signal<ReadonlySet<string>>(new Set())

export function isPending(subject: string): boolean {
  return pending.value.has(subject)
}

/** Asks for a change and tells what the node said of it. `true`: it is done. */
export async function perform(session: Session, subject: string, request: Request): Promise<boolean> {
  return during(subject, async () => {
    const changes = await ask(session, request, 'done')
    say(changes.map(changeLine).join('; ') || 'Done; nothing had to change.')
  })
}

/** Marks something as under way while it is, and tells when it fails. `true`: it did not. */
export async function during(subject: string, work: () => Promise<void>): Promise<boolean> {
  pending.value = new Set(pending.value).add(subject)
  try {
    await work()
    return true
  } catch (error) {
    say(messageOf(error), true)
    return false
  } finally {
    const left = new Set(pending.value)
    left.delete(subject)
    pending.value = left
  }
}

/** The line to show of something that was thrown: a sentence, unless it begins with a key, a path or a name of the cluster. */
export function messageOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error)
  if (/^\S*[./]\S/.test(text)) return text
  return text.charAt(0).toUpperCase() + text.slice(1)
}
