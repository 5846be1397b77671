// Streams the logs of a service into a buffer.

import { effect } from '@preact/signals'

import { errorMessage } from './actions'
import type { LogBuffer } from './log-buffer'
import type { Session } from './state'

interface LogEvents {
  line: () => void
  /** Shows a note beside the lines; empty to remove it. */
  note: (text: string) => void
}

/**
 * Streams logs into the buffer until aborted, resuming where the buffer ends. A stream ends with the last instance of its
 * service; a new one starts when the service is deployed again.
 */
export async function followLogs(
  session: Session,
  service: string,
  buffer: LogBuffer,
  events: LogEvents,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    await followOnce(session, service, buffer, events, signal)
    await waitUntilRedeployed(session, service, signal)
  }
}

async function followOnce(
  session: Session,
  service: string,
  buffer: LogBuffer,
  events: LogEvents,
  signal: AbortSignal,
): Promise<void> {
  let note = ''
  const setNote = (text: string) => {
    note = text
    events.note(text)
  }
  setNote('')
  try {
    const replies = session.mesh.stream({ op: 'logs', service, replica: null, follow: true, ...buffer.resume(Date.now()) }, { signal })
    for await (const reply of replies) {
      if (reply.reply === 'log') {
        buffer.push(reply.value, Date.now())
        events.line()
        // The node's stream has resumed.
        if (note && note.startsWith(`logs from ${nameOf(session, reply.value.node)} ended: `)) setNote('')
      } else if (reply.reply === 'note') {
        setNote(reply.value)
      }
    }
    setNote('The log has ended.')
  } catch (error) {
    if (!signal.aborted) setNote(errorMessage(error))
  }
}

const nameOf = (session: Session, node: string): string | undefined =>
  session.nodes.value.find(({ id }) => id === node)?.name

/** Waits until the service has been removed and deployed again, or the signal aborts. */
async function waitUntilRedeployed({ services }: Session, service: string, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return
  let wasRemoved = false
  let dispose = () => {}
  await new Promise<void>((resolve) => {
    signal.addEventListener('abort', () => resolve())
    dispose = effect(() => {
      const isPresent = services.value.some((it) => it.service === service)
      if (isPresent && wasRemoved) resolve()
      wasRemoved ||= !isPresent
    })
  })
  dispose()
}
