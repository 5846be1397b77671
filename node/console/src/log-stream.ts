import { messageOf } from './actions'
import type { LogBuffer } from './log-buffer'
import type { Session } from './state'

interface LogEvents {
  line: () => void
  /** Something to tell beside the lines; empty: nothing any more. */
  note: (text: string) => void
}

/** Fills the buffer until it is aborted or the node is lost; after that it goes on where it was. */
export async function followLogs(
  session: Session,
  service: string,
  buffer: LogBuffer,
  events: LogEvents,
  signal: AbortSignal,
): Promise<void> {
  events.note('')
  try {
    const replies = session.mesh.stream({ op: 'logs', service, replica: null, follow: true, ...buffer.resume(Date.now()) }, { signal })
    for await (const reply of replies) {
      if (reply.reply === 'log') {
        buffer.push(reply.value, Date.now())
        events.line()
      } else if (reply.reply === 'note') {
        events.note(reply.value)
      }
    }
    events.note('The log has ended.')
  } catch (error) {
    if (!signal.aborted) events.note(messageOf(error))
  }
}
