import { effect } from '@preact/signals'
import type { Reply, Request } from 'vc-mesh'

import type { Session } from './state'

/** What each kind of answer holds. */
type Values = { [R in Extract<Reply, { value: unknown }> as R['reply']]: R['value'] }

/** Asks and expects one kind of answer. Errors: the node refuses, is lost, or answers something else. */
export async function ask<K extends keyof Values>(
  session: Session,
  request: Request,
  kind: K,
  signal?: AbortSignal,
): Promise<Values[K]> {
  const reply = await session.mesh.request(request, signal ? { signal } : {})
  if (reply.reply !== kind) throw new Error(`the node answered '${reply.reply}' to '${request.op}'`)
  return (reply as { reply: K; value: Values[K] }).value
}

/** So often something is asked that changes nothing, when nodes are lost on the way. */
const MAX_TRIES = 3

/** As {@link ask}, for what changes nothing: when the node is lost, whoever is there next is asked. */
export async function askAgain<K extends keyof Values>(session: Session, request: Request, kind: K): Promise<Values[K]> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await ask(session, request, kind)
    } catch (error) {
      if (tries === MAX_TRIES || !isLost(error)) throw error
    }
    await untilLive(session)
  }
}

/** Whether the connection went away: whether a change was made is not known. */
export function isLost(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'lost'
}

/** Waits for a node to be there; goes on as well when there will be none any more. */
function untilLive(session: Session): Promise<void> {
  return new Promise((resolve) => {
    effect(function (this: { dispose(): void }) {
      const { state } = session.link.value
      if (state === 'connecting' || state === 'lost') return
      resolve()
      this.dispose()
    })
  })
}
