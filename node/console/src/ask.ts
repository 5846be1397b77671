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
