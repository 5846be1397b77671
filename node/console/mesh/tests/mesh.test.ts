import './polyfills.js'

import { streamPair } from '@libp2p/utils'
import { afterEach, describe, expect, it, vi } from 'vitest'

import { Frames } from '../src/frames.js'
import { Mesh } from '../src/mesh.js'
import type { MeshState } from '../src/api.js'
import { identity, jwt, memberClaims, userToken } from './credentials.js'
import type { Identity } from './credentials.js'
import { serveMux } from './mux-pair.js'

let mesh: Mesh | null = null
afterEach(() => {
  mesh?.close()
  mesh = null
  vi.unstubAllGlobals()
})

/** Runs a node that accepts the user or rejects it with `refused`, and answers every request with a live view. */
async function admit(root: Identity, node: Identity, refused: object | null): Promise<Frames> {
  const [own, other] = await streamPair({ delay: 0 })
  const frames = new Frames(other)
  const serve = async (): Promise<void> => {
    await frames.receiveJson()
    await frames.sendJson({ certificate: await jwt(root, memberClaims(root, node)) })
    await frames.receiveJson()
    if (refused) return await frames.sendJson({ refused })
    await frames.sendJson({ user: { role: 'admin', peers: [] } })
    await frames.receiveJson()
    await frames.sendJson({ reply: 'ready' })
    serveMux(frames.detach(), async (stream) => {
      await stream.receiveJson()
      await stream.sendJson({ reply: 'live', value: { nodes: [{ id: node.id, addresses: [] }] } })
      await stream.receive()
    })
  }
  void serve()
  return new Frames(own)
}

/** Returns a client of a cluster with one node. */
async function attached(refused: object | null): Promise<Mesh> {
  const [root, node] = [await identity(), await identity()]
  const dial = async (address: string) => {
    const frames = await admit(root, node, refused)
    return { stream: frames.detach(), peer: node.id, address, close: () => {} }
  }
  const token = await userToken(root, ['/node'])
  return new Mesh({ token }, { dial, peerOf: () => node.id })
}

const reached = (state: MeshState['state']): Promise<MeshState> =>
  new Promise((resolve) => mesh?.onState((now) => now.state === state && resolve(now)))

describe('Mesh', () => {
  it('continues when a listener throws, and reports the error', async () => {
    const reported = vi.fn()
    vi.stubGlobal('reportError', reported)
    mesh = await attached(null)
    const fault = new Error('an error of the page')
    mesh.onView(() => {
      throw fault
    })
    const views = vi.fn()
    mesh.onView(views)
    mesh.start()
    await reached('live')
    expect(views).toHaveBeenCalledOnce()
    expect(reported).toHaveBeenCalledWith(fault)
  })

  it('is refused when the node rejects the token', async () => {
    mesh = await attached({ reason: 'the token expired' })
    mesh.start()
    expect(await reached('refused')).toMatchObject({ reason: 'the token expired' })
  })

  it('is lost, and retries, when the node is busy', async () => {
    mesh = await attached({ reason: 'too many', busy: true })
    mesh.start()
    expect(await reached('lost')).toMatchObject({ reason: 'too many' })
  })
})
