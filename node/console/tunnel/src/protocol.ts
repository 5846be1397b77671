/**
 * Defines the messages between an app's origin and the console, and between pages and the service worker of one origin.
 *
 * An **RPC channel** is a MessagePort that is bound to one published port of one service when the console creates it. A holder
 * of the port can call that service and nothing else: no message names a service. Each request and each WebSocket has a
 * MessagePort of its own, transferred with the call that starts it. A channel can be forked: the caller transfers one end of a
 * new MessageChannel and keeps the other, or passes it on.
 *
 * The console treats every message on a channel as unauthenticated input and validates it with `parseCall`.
 */

/** Header names and values in order; values are Latin-1, as in `protocol/src/http.rs`. */
export type HeaderList = [name: string, value: string][]

/** First message of the window that the console opened, posted to the console's origin. */
export interface Hello {
  vcHello: string
}
/** The console's reply, posted to the app's origin with an RPC channel in the message's ports. */
export interface Welcome {
  vcWelcome: string
  app: App
}

/** The service port that a channel is bound to. */
export interface App {
  /** `project/service`. */
  service: string
  /** The published port. */
  port: number
}

/** Calls from an app's origin to the console, on a channel. */
export type RpcCall =
  /** `hold`: the request waits until the app can be reached, instead of failing. */
  | { op: 'fetch'; method: string; target: string; headers: HeaderList; body: boolean; hold: boolean; port: MessagePort }
  | { op: 'socket'; target: string; headers: HeaderList; protocols: string[]; port: MessagePort }
  | { op: 'fork'; port: MessagePort }
  /** Sets the `Authorization` header of the app's requests that have none. Nothing returns it. */
  | { op: 'credentials'; authorization: string }
  | { op: 'ping' }
  | { op: 'close' }

/** Events from the console on a channel; `live` says whether the console is connected to the cluster. */
export type RpcEvent = { event: 'pong'; live: boolean } | { event: 'close' }

/**
 * The console's reply on the port of a request; the body follows as a `CreditStream`. `authorized`: the request carried the
 * credentials of the app.
 */
export type RpcReply =
  | { reply: 'head'; status: number; headers: HeaderList; authorized: boolean }
  | { reply: 'error'; code: FailureCode; message: string }

/**
 * `unreachable`: the console has no connection to the cluster; nothing was sent. `lost`: the connection was lost. `refused`: a
 * node refused the request, which did not reach an instance. `failed`: no instance answered. After `lost` and `failed` it is
 * not known whether the request reached an instance.
 */
export type FailureCode = 'unreachable' | 'lost' | 'refused' | 'failed'

/** Commands to the console, on the port of a WebSocket. */
export type SocketCommand = { send: string | ArrayBuffer } | { close: true; code?: number; reason?: string }
/** Events from the console, on the port of a WebSocket. */
export type SocketEvent =
  | { socket: 'open'; protocol: string }
  | { socket: 'message'; data: string | ArrayBuffer }
  | { socket: 'sent'; bytes: number }
  | { socket: 'closed'; code: number; reason: string; clean: boolean }

/** Messages from a page to the service worker of its origin. */
export type PageMessage =
  /** Hands over a channel in the message's ports; `fresh` if it comes from the console and not from a fork. */
  | { page: 'channel'; app: App; fresh: boolean }
  /** Asks for a channel of the page's own. */
  | { page: 'need-channel' }
  /** Asks whether the app is reachable. */
  | { page: 'ready' }
  /** Signs in to the app with HTTP Basic authentication; answered with `ready`. */
  | { page: 'sign-in'; user: string; password: string }
  /** Asks for the app's own answer to this URL, once, instead of the sign-in page; answered with `ready`. */
  | { page: 'decline'; url: string }
  /** Opens a WebSocket over the port in the message's ports. */
  | { page: 'socket'; target: string; protocols: string[] }
  /** Reports that a script aborted the request with this mark (see `reportAborts`). */
  | { page: 'abort'; mark: string }
  /** Reports a cookie that a script set. */
  | { page: 'cookie'; url: string; cookie: string }
  /** Answers `keepalive`: any message keeps the service worker running. */
  | { page: 'keepalive-ack' }
/** Messages from the service worker to a page of its origin. */
export type WorkerMessage =
  /** Hands over a channel for the page in the message's ports. */
  | { worker: 'channel'; app: App }
  | { worker: 'need-channel' }
  | { worker: 'ready'; ready: boolean }
  | { worker: 'keepalive' }

/** Maximum number of headers, which is also the node's. */
const MAX_HEADERS = 128
/** Maximum length of the URL and of each header, in UTF-16 code units. */
const MAX_TEXT = 64 * 1024

/**
 * Returns why `parseCall` rejected a message, for the caller; browsers do not limit the size of URLs and headers
 * themselves.
 */
export function rejectionReason(it: unknown): string {
  if (!isRecord(it)) return 'malformed request'
  const { target, headers } = it
  const more = `larger than ${MAX_TEXT / 1024} KiB`
  if (typeof target === 'string' && !isText(target)) return `the URL is ${more}`
  if (!Array.isArray(headers)) return 'malformed request'
  if (headers.length > MAX_HEADERS) return `the request has more than ${MAX_HEADERS} headers`
  const large: unknown = headers.find((row) => Array.isArray(row) && !isText(row[1]))
  return Array.isArray(large) && isText(large[0]) ? `the header '${large[0]}' is ${more}` : 'malformed request'
}

/** Validates a message on a channel; returns `null` if it is not a well-formed call within the limits. */
export function parseCall(event: MessageEvent<unknown>): RpcCall | null {
  const it = event.data
  if (!isRecord(it)) return null
  const port = event.ports[0]
  switch (it['op']) {
    case 'ping':
      return { op: 'ping' }
    case 'close':
      return { op: 'close' }
    case 'fork':
      return port ? { op: 'fork', port } : null
    case 'credentials':
      return isText(it['authorization']) ? { op: 'credentials', authorization: it['authorization'] } : null
    case 'fetch': {
      const { method, target, headers, body, hold } = it
      if (!port || !isText(method) || !isTarget(target) || !isHeaders(headers) || typeof body !== 'boolean') return null
      return { op: 'fetch', method, target, headers, body, hold: hold === true, port }
    }
    case 'socket': {
      const { target, headers, protocols } = it
      if (!port || !isTarget(target) || !isHeaders(headers)) return null
      if (!Array.isArray(protocols) || protocols.length > MAX_HEADERS || !protocols.every(isText)) return null
      return { op: 'socket', target, headers, protocols, port }
    }
    default:
      return null
  }
}

/** Validates a message on the port of a WebSocket; returns `null` if it is malformed. */
export function parseSocketCommand(it: unknown): SocketCommand | null {
  if (!isRecord(it)) return null
  const { send, close, code, reason } = it
  if (typeof send === 'string' || send instanceof ArrayBuffer) return { send }
  if (close !== true) return null
  return {
    close,
    ...(typeof code === 'number' ? { code } : {}),
    ...(isText(reason) ? { reason } : {}),
  }
}

/** Tells whether a value is an object whose properties can be read. */
export function isRecord(it: unknown): it is Record<string, unknown> {
  return typeof it === 'object' && it !== null
}

function isText(it: unknown): it is string {
  return typeof it === 'string' && it.length <= MAX_TEXT
}

function isTarget(it: unknown): it is string {
  return isText(it) && it.startsWith('/')
}

function isHeaders(it: unknown): it is HeaderList {
  const pair = (row: unknown): boolean => Array.isArray(row) && row.length === 2 && row.every(isText)
  return Array.isArray(it) && it.length <= MAX_HEADERS && it.every(pair)
}
