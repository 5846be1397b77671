// Requests to the control API with typed replies.

import { effect } from '@preact/signals'
import type { Reply, Request } from 'vc-mesh'

import type { Session } from './state'

/** The type of `value` for each kind of reply. */
type Values = { [R in Extract<Reply, { value: unknown }> as R['reply']]: R['value'] }

/** Sends a request and returns the value of its reply. Fails if the node does, the connection is lost, or the reply is not of `kind`. */
export async function call<K extends keyof Values>(
  session: Session,
  request: Request,
  kind: K,
  signal?: AbortSignal,
): Promise<Values[K]> {
  const reply = await session.mesh.request(request, signal ? { signal } : {})
  if (reply.reply !== kind) {
    throw new Error(`unexpected reply '${reply.reply}' to '${request.op}': the node and this console have different versions`)
  }
  return (reply as { reply: K; value: Values[K] }).value
}

/** How often a read-only request is sent, at most. */
const MAX_ATTEMPTS = 3

/** As {@link call}, for read-only requests: retries on the next node when the connection is lost. */
export async function callWithRetry<K extends keyof Values>(session: Session, request: Request, kind: K): Promise<Values[K]> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await call(session, request, kind)
    } catch (error) {
      if (attempt === MAX_ATTEMPTS || !isConnectionLost(error)) throw error
    }
    await waitUntilConnected(session)
  }
}

/** Returns whether the connection was lost before the reply: a mutation may or may not have been applied. */
export function isConnectionLost(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'lost'
}

/** Waits for a connection to a node. Resolves as well when the session ends, so that the next request fails. */
function waitUntilConnected(session: Session): Promise<void> {
  return new Promise((resolve) => {
    effect(function (this: { dispose(): void }) {
      const { state } = session.connection.value
      if (state === 'connecting' || state === 'lost') return
      resolve()
      this.dispose()
    })
  })
}
