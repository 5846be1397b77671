import type {
  ApiError,
  EventRow,
  InstanceRow,
  NodeRow,
  ResponseHead,
  ServiceRow,
  StatusReport,
  UserRole,
} from './types.js'
import { describeError } from './types.js'

/** The credentials and the addresses of a mesh client. */
export interface MeshOptions {
  /** A user token from `vc token create`. It stays in memory and is sent to authenticated members of its cluster only. */
  token: string
  /** Addresses to dial in addition to those in the token. Only `/webrtc-direct/…/p2p/…` addresses are used. */
  peers?: string[]
  /**
   * Runs the checks of the connections, `setInterval` by default: browsers run its timers only once a second while the page is
   * hidden, so that silent nodes are noticed later. A function that counts time in a worker is exact.
   */
  every?: Every
}

/** Calls `callback` at an interval in milliseconds. Returns the function that stops this. */
export type Every = (callback: () => void, interval: number) => () => void

/** The state of the connection to the cluster. Times are milliseconds since the epoch. */
export type MeshState =
  | { state: 'connecting'; since: number }
  | {
      state: 'live'
      /** Peer id of the connected node. */
      node: string
      /** The address that was dialled. */
      address: string
      /** Smoothed round-trip time in milliseconds; `null` before the first measurement. */
      rttMs: number | null
      role: UserRole
      user: string
    }
  /** No node answers; the next attempt is at `retryAt`. */
  | { state: 'lost'; since: number; reason: string; retryAt: number }
  /** Every node rejects the token; the client does not reconnect. */
  | { state: 'refused'; reason: string }
  | { state: 'closed' }

/** Reports a failed operation; the message is for users. */
export class MeshError extends Error {
  override readonly name = 'MeshError'
  /**
   * `refused`: a node rejected the request, nothing has changed. `failed`: the request is invalid, or an instance closed the
   * stream before its response. `lost`: the connection was lost; a change may or may not have been made. `aborted`: by the
   * caller.
   */
  readonly code: 'refused' | 'failed' | 'lost' | 'aborted'
  /** The code of the node's error reply, such as `unavailable` ({@link ApiError.code}); `null` if there was none. */
  readonly status: string | null

  constructor(code: MeshError['code'], message: string, options: ErrorOptions & { status?: string } = {}) {
    super(message, options)
    this.code = code
    this.status = options.status ?? null
  }
}

/** Converts the error reply of a node. */
export function refusal(reply: ApiError): MeshError {
  return new MeshError('refused', describeError(reply), { status: reply.code })
}

/** The last known state of the cluster. */
export interface View {
  status: StatusReport | null
  nodes: NodeRow[]
  services: ServiceRow[]
  instances: InstanceRow[]
  /** The last 500 events, newest last. */
  events: EventRow[]
}

/** The claims of a token, without any check of its signature. */
export interface TokenClaims {
  /** The name of the user. */
  sub: string
  /** Expiry time, in seconds since the epoch. */
  exp: number
  scope: unknown
  /** The id of the cluster. */
  aud: string
  /** The projects that the token is limited to; absent for all. */
  projects?: string[]
}

/** A response of an instance with its headers unchanged, `set-cookie` included, which a `Response` hides. */
export interface Exchange {
  head: ResponseHead
  /** Must be read to its end or cancelled. Fails with a `MeshError` if it is cut off. */
  body: ReadableStream<Uint8Array<ArrayBuffer>>
}

/** A command that runs in an instance. */
export interface RunningCommand {
  /** Yields what it writes, and returns its exit code. Leaving the loop closes it. Errors: `MeshError` if it cannot run or is lost. */
  output(): AsyncGenerator<Uint8Array, number>
  /** Sends bytes to its standard input. */
  write(bytes: Uint8Array): void
  /** Tells the new size of its terminal. */
  resize(columns: number, rows: number): void
  /** Ends the connection to it, and with it most commands. */
  close(): void
}

/** A WebSocket to an instance: the commonly used part of `WebSocket`, and a `drain` event for each message that has left. */
export interface MeshSocket extends EventTarget {
  /** 0 connecting, 1 open, 2 closing, 3 closed, as in `WebSocket`. */
  readonly readyState: 0 | 1 | 2 | 3
  /** The subprotocol that the instance selected; empty if none. */
  readonly protocol: string
  /** Number of bytes passed to `send` that have not left yet. */
  readonly bufferedAmount: number
  binaryType: 'blob' | 'arraybuffer'
  onopen: ((event: Event) => void) | null
  onmessage: ((event: MessageEvent) => void) | null
  onerror: ((event: Event) => void) | null
  onclose: ((event: CloseEvent) => void) | null
  /** Sends a message of at most 1 MiB. Errors: `InvalidStateError` while connecting, `MeshError` if it is too large. */
  send(data: string | ArrayBuffer | ArrayBufferView | Blob): void
  /** Closes the socket. `code` is 1000 or 3000 to 4999, `reason` at most 123 bytes of UTF-8. */
  close(code?: number, reason?: string): void
}
