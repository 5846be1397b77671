import type {
  EventRow,
  InstanceRow,
  NodeRow,
  ResponseHead,
  ServiceRow,
  StatusReport,
  UserRole,
} from './types.js'

/** Whom to be, and where to begin. */
export interface MeshOptions {
  /** A user token, as `vc token create` makes it. It stays in memory and goes to members of its cluster alone. */
  token: string
  /** More addresses to try, beside those in the token. Those that end in `/webrtc-direct/…/p2p/…` are used. */
  peers?: string[]
}

/** How the connection to the cluster is. */
export type MeshState =
  | { state: 'connecting'; since: number }
  | {
      state: 'live'
      /** Peer id of the node that answers. */
      node: string
      /** Where it was dialled. */
      address: string
      /** Round trip to it, milliseconds; `null`: not measured yet. */
      rttMs: number | null
      role: UserRole
      user: string
    }
  /** Nobody answers at the moment; it goes on trying. */
  | { state: 'lost'; since: number; reason: string; retryAt: number }
  /** The token is refused: it does not go on. */
  | { state: 'refused'; reason: string }
  | { state: 'closed' }

/** Why something asked of the cluster did not work. The message is for people. */
export class MeshError extends Error {
  override readonly name = 'MeshError'
  /**
   * `refused`: a node said no, and nothing has changed. `failed`: it cannot be done like this, or an instance's
   * answer broke off before it began. `lost`: the connection
   * went away; whether a change was made is not known. `aborted`: by the caller.
   */
  readonly code: 'refused' | 'failed' | 'lost' | 'aborted'

  constructor(code: MeshError['code'], message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** The cluster, as it was last heard of. */
export interface View {
  status: StatusReport | null
  nodes: NodeRow[]
  services: ServiceRow[]
  instances: InstanceRow[]
  /** Newest last, at most 500. */
  events: EventRow[]
}

/** What a token says of itself. Nobody has checked it. */
export interface TokenClaims {
  /** The user's name. */
  sub: string
  /** Expires at, seconds since the epoch. */
  exp: number
  scope: unknown
  /** The cluster's id. */
  aud: string
}

/** An answer of an instance, with its headers as they came: `set-cookie` is among them, which a `Response` hides. */
export interface Exchange {
  head: ResponseHead
  /** It ends where the instance ended it; it fails with a `MeshError` when it was cut. Cancel it, or read all of it. */
  body: ReadableStream<Uint8Array<ArrayBuffer>>
}

/** A WebSocket to an instance, through the mesh: the part of `WebSocket` that pages use. */
export interface MeshSocket extends EventTarget {
  /** As in `WebSocket`: 0 connecting, 1 open, 2 closing, 3 closed. */
  readonly readyState: 0 | 1 | 2 | 3
  /** The subprotocol that the instance chose; empty: none. */
  readonly protocol: string
  /** Bytes given to `send` that have not left yet. */
  readonly bufferedAmount: number
  binaryType: 'blob' | 'arraybuffer'
  onopen: ((event: Event) => void) | null
  onmessage: ((event: MessageEvent) => void) | null
  onerror: ((event: Event) => void) | null
  onclose: ((event: CloseEvent) => void) | null
  /** Sends a message of at most 1 MiB. Errors: still connecting (`InvalidStateError`), or too large. */
  send(data: string | ArrayBuffer | ArrayBufferView | Blob): void
  close(code?: number, reason?: string): void
}
