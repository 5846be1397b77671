import type { Stream } from '@libp2p/interface'

import { MeshError } from './api.js'
import { verifyMember } from './certificate.js'
import { Frames } from './frames.js'
import { Mux } from './mux.js'
import type { Reply, UserRole } from './types.js'

/** A connection to a node with a stream on it that speaks `/vc/auth/1`; nothing has been said on that yet. */
export interface Connection {
  stream: Stream
  /** Whose it is, proven by the transport: a peer id. */
  peer: string
  /** Where it was dialled. */
  address: string
  /** Ends the connection. */
  close(): void
}

/** Makes a connection. Errors: nobody answers, another peer answers, or `signal`. */
export type Dial = (address: string, signal: AbortSignal) => Promise<Connection>

/** A node that has let us in. */
export interface Session {
  node: string
  address: string
  role: UserRole
  mux: Mux
  close(): void
}

/** How a node answers a user. */
type Welcome = { user: { role: UserRole } } | { refused: { reason: string; busy?: boolean } }

/**
 * Shows a node the token, once it has shown that it is of the cluster, and goes on to many streams.
 *
 * @throws MeshError `refused`: this node does not accept the token; else it cannot be used now
 */
export async function authenticate(link: Connection, token: string, cluster: string, signal: AbortSignal): Promise<Session> {
  const frames = new Frames(link.stream)
  const stop = (): void => frames.abort(new MeshError('aborted', 'the node did not answer in time'))
  signal.addEventListener('abort', stop)
  try {
    await frames.sendJson({ version: 1 })
    const { certificate } = await frames.receiveJson<{ certificate: string }>()
    await verifyMember(String(certificate), cluster, link.peer)
    await frames.sendJson({ user: { token } })
    const welcome = await frames.receiveJson<Welcome>()
    if ('refused' in welcome) {
      const { reason, busy } = welcome.refused
      throw new MeshError(busy ? 'failed' : 'refused', reason)
    }
    await frames.sendJson({ op: 'multiplex' })
    const reply = await frames.receiveJson<Reply>()
    if (reply.reply !== 'ready') throw new MeshError('failed', 'this node is too old for browsers: update it')
    const mux = new Mux(frames.detach())
    void mux.closed.then(() => link.close())
    const { role } = welcome.user
    const close = (): void => mux.end(new MeshError('lost', 'the connection was closed'))
    return { node: link.peer, address: link.address, role, mux, close }
  } catch (error) {
    link.close()
    throw error
  } finally {
    signal.removeEventListener('abort', stop)
  }
}
