import type { Stream } from '@libp2p/interface'

import { MeshError } from './api.js'
import type { Every } from './api.js'
import { verifyMember, verifySuccession } from './certificate.js'
import { Frames } from './frames.js'
import { Mux } from './mux.js'
import type { Reply, UserRole } from './types.js'

/** A connection to a node with an open `/vc/auth/1` stream, before its first message. */
export interface Connection {
  stream: Stream
  /** The node's peer id, authenticated by the transport. */
  peer: string
  /** The address that was dialled. */
  address: string
  /** Closes the connection. */
  close(): void
}

/** Dials an address. Errors: no answer, another peer answers, or `signal` aborts. */
export type Dial = (address: string, signal: AbortSignal) => Promise<Connection>

/** An authenticated session with a node. */
export interface Session {
  node: string
  address: string
  role: UserRole
  mux: Mux
  close(): void
}

/** A node's reply to a user's token. */
type Welcome = { user: { role: UserRole } } | { refused: { reason: string; busy?: boolean } }

/**
 * Authenticates with a node and multiplexes the connection. The token is sent only after the node's membership is verified.
 *
 * @throws MeshError `refused` if the node rejects the token; another code if it cannot be used now
 */
export async function authenticate(
  connection: Connection,
  token: string,
  cluster: string,
  signal: AbortSignal,
  every?: Every,
): Promise<Session> {
  const frames = new Frames(connection.stream)
  const stop = (): void => frames.abort(new MeshError('aborted', 'the node did not authenticate in time'))
  signal.addEventListener('abort', stop)
  try {
    await frames.sendJson({ version: 1 })
    const { certificate } = await frames.receiveJson<{ certificate: string }>()
    await verifyMember(String(certificate), cluster, connection.peer)
    await verifySuccession(String(certificate), cluster, connection.peer, token)
    await frames.sendJson({ user: { token } })
    const welcome = await frames.receiveJson<Welcome>()
    if ('refused' in welcome) {
      const { reason, busy } = welcome.refused
      throw new MeshError(busy ? 'failed' : 'refused', reason)
    }
    await frames.sendJson({ op: 'multiplex' })
    const reply = await frames.receiveJson<Reply>()
    if (reply.reply !== 'ready') throw new MeshError('failed', 'the node does not support browsers: update vc-node on it')
    const mux = new Mux(frames.detach(), every)
    void mux.closed.then(() => connection.close())
    const { role } = welcome.user
    const close = (): void => mux.end(new MeshError('lost', 'the connection was closed'))
    return { node: connection.peer, address: connection.address, role, mux, close }
  } catch (error) {
    connection.close()
    throw error
  } finally {
    signal.removeEventListener('abort', stop)
  }
}
