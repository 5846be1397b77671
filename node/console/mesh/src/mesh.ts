import { MeshError } from './api.js'
import type { MeshOptions, MeshSocket, MeshState, TokenClaims, View } from './api.js'
import type { Reply, Request as ClusterRequest } from './types.js'

const UNFINISHED = 'this client is being written'

/** A cluster, seen from a browser. */
export class Mesh {
  readonly state: MeshState = { state: 'connecting', since: Date.now() }
  readonly view: View = { status: null, nodes: [], services: [], instances: [], events: [] }
  readonly claims: TokenClaims

  constructor(_options: MeshOptions) {
    this.claims = { sub: '', exp: 0, scope: null, aud: '' }
  }

  onState(listener: (state: MeshState) => void): () => void {
    listener(this.state)
    return () => {}
  }

  onView(_listener: (view: View, changed: ReadonlySet<keyof View>) => void): () => void {
    return () => {}
  }

  start(): void {}

  known(): string[] {
    return []
  }

  async request(_request: ClusterRequest, _options?: { signal?: AbortSignal }): Promise<Reply> {
    throw new MeshError('failed', UNFINISHED)
  }

  async *stream(_request: ClusterRequest, _options?: { signal?: AbortSignal }): AsyncGenerator<Reply> {
    throw new MeshError('failed', UNFINISHED)
  }

  async fetch(_service: string, _port: number | null, _input: RequestInfo | URL, _init?: RequestInit): Promise<Response> {
    throw new MeshError('failed', UNFINISHED)
  }

  async fetchUrl(_url: string | URL, _init?: RequestInit): Promise<Response> {
    throw new MeshError('failed', UNFINISHED)
  }

  socket(
    _service: string,
    _port: number | null,
    _path: string,
    _protocols?: string[],
    _headers?: [string, string][],
  ): MeshSocket {
    throw new MeshError('failed', UNFINISHED)
  }

  close(): void {}
}
