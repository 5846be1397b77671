import { effect } from '@preact/signals'

import { messageOf } from './actions'
import type { LogBuffer } from './log-buffer'
import type { Session } from './state'

interface LogEvents {
  line: () => void
  /** Something to tell beside the lines; empty: nothing any more. */
  note: (text: string) => void
}

/**
 * Fills the buffer until it is aborted or the node is lost; after that it goes on where it was. A log ends with the last
 * instance of its service, and begins anew when the service comes again.
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
    await comesAgain(session, service, signal)
  }
}

async function followOnce(
  session: Session,
  service: string,
  buffer: LogBuffer,
  events: LogEvents,
  signal: AbortSignal,
): Promise<void> {
  let told = ''
  const tell = (text: string) => {
    told = text
    events.note(text)
  }
  tell('')
  try {
    const replies = session.mesh.stream({ op: 'logs', service, replica: null, follow: true, ...buffer.resume(Date.now()) }, { signal })
    for await (const reply of replies) {
      if (reply.reply === 'log') {
        buffer.push(reply.value, Date.now())
        events.line()
        // What had ended goes on.
        if (told && told.startsWith(`logs from ${nameOf(session, reply.value.node)} ended: `)) tell('')
      } else if (reply.reply === 'note') {
        tell(reply.value)
      }
    }
    tell('The log has ended.')
  } catch (error) {
    if (!signal.aborted) tell(messageOf(error))
  }
}

const nameOf = (session: Session, node: string): string | undefined =>
  session.nodes.value.find(({ id }) => id === node)?.name

/** Waits until the service is there after it was not. */
async function comesAgain({ services }: Session, service: string, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return
  let wasGone = false
  let end = () => {}
  await new Promise<void>((resolve) => {
    signal.addEventListener('abort', () => resolve())
    end = effect(() => {
      const isThere = services.value.some((it) => it.service === service)
      if (isThere && wasGone) resolve()
      wasGone ||= !isThere
    })
  })
  end()
}
