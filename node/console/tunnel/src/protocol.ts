/**
 * What an app's origin and the console say to each other, over MessagePorts.
 *
 * A **line** is a port to the console that stands for one port of one service. Whoever has one can ask for that service and
 * nothing else: the console believes nothing that it is told about which. Each request and each WebSocket gets a port of its
 * own, handed over with the message that begins it. Lines are made from lines: whoever has one passes on one end of a new
 * channel and keeps, or gives away, the other.
 *
 * The console takes every message from a line for one of a stranger; so each is read by `readAsk` first.
 */

/** Name and value, in their order; values as in `protocol/src/http.rs`, Latin-1. */
export type HeaderList = [name: string, value: string][]

/** The window that the console opens says this first, to the console alone. */
export interface Hello {
  vcHello: string
}
/** The console's answer, with a line: to the window that it opened, at the app's origin alone. */
export interface Welcome {
  vcWelcome: string
  app: App
}

/** What a line leads to. */
export interface App {
  /** `project/service`. */
  service: string
  /** The published port. */
  port: number
}

/** From an app's origin to the console, on a line. */
export type Ask =
  | { ask: 'fetch'; method: string; target: string; headers: HeaderList; body: boolean; port: MessagePort }
  | { ask: 'socket'; target: string; headers: HeaderList; protocols: string[]; port: MessagePort }
  | { ask: 'line'; port: MessagePort }
  | { ask: 'ping' }
  | { ask: 'bye' }

/** From the console, on a line: that it is there, and whether the cluster is. Or that it goes away. */
export type Told = { told: 'pong'; live: boolean } | { told: 'bye' }

/** From the console, on the port of a request; its body follows as of a `Flow`. */
export type Answer =
  | { answer: 'head'; status: number; headers: HeaderList }
  | { answer: 'failed'; code: FailureCode; message: string }

/** `lost`: the cluster is out of reach, try later. `refused`, `failed`: the node's word. */
export type FailureCode = 'lost' | 'refused' | 'failed'

/** To the console, on the port of a WebSocket. */
export type SocketAsk = { send: string | ArrayBuffer } | { close: true; code?: number; reason?: string }
/** From the console, on the port of a WebSocket. */
export type SocketTold =
  | { socket: 'open'; protocol: string }
  | { socket: 'message'; data: string | ArrayBuffer }
  | { socket: 'sent'; bytes: number }
  | { socket: 'closed'; code: number; reason: string; clean: boolean }

/** Between pages and the service worker of one origin. */
export type PageAsk =
  /** A line for the worker, in the message's ports: fresh from the console, or from what a page has. */
  | { page: 'line'; app: App; fresh: boolean }
  /** A page wants a line. */
  | { page: 'want-line' }
  /** Is there a way to the app? */
  | { page: 'ready' }
  /** Opens a WebSocket that talks over the port in the message's ports. */
  | { page: 'socket'; target: string; protocols: string[] }
  /** What `followAborts` has marked so was given up. */
  | { page: 'unwanted'; mark: string }
  /** A script has set a cookie. */
  | { page: 'cookie'; url: string; line: string }
  /** Anything, so that the worker lives on. */
  | { page: 'held' }
export type WorkerTold =
  /** A line for the page, in the message's ports. */
  | { worker: 'line'; app: App }
  | { worker: 'want-line' }
  | { worker: 'ready'; ready: boolean }
  | { worker: 'hold' }

/** More headers than any node takes. */
const MAX_HEADERS = 128
const MAX_TEXT = 64 * 1024

/**
 * Why a message is none that `readAsk` takes, for whoever waits for its answer; the commonest first. A browser sends what is
 * too large as it sends anything.
 */
export function whyNot(it: unknown): string {
  if (!isRecord(it)) return 'this is no request'
  const { target, headers } = it
  const more = `larger than ${MAX_TEXT / 1024} KiB`
  if (typeof target === 'string' && !isText(target)) return `the URL is ${more}`
  if (!Array.isArray(headers)) return 'this is no request'
  if (headers.length > MAX_HEADERS) return `the request has more than ${MAX_HEADERS} headers`
  const large: unknown = headers.find((row) => Array.isArray(row) && !isText(row[1]))
  return Array.isArray(large) && isText(large[0]) ? `the header '${large[0]}' is ${more}` : 'this is no request'
}

/** A message on a line, if it is one that can be. */
export function readAsk(event: MessageEvent<unknown>): Ask | null {
  const it = event.data
  if (!isRecord(it)) return null
  const port = event.ports[0]
  switch (it['ask']) {
    case 'ping':
      return { ask: 'ping' }
    case 'bye':
      return { ask: 'bye' }
    case 'line':
      return port ? { ask: 'line', port } : null
    case 'fetch': {
      const { method, target, headers, body } = it
      if (!port || !isText(method) || !isTarget(target) || !isHeaders(headers) || typeof body !== 'boolean') return null
      return { ask: 'fetch', method, target, headers, body, port }
    }
    case 'socket': {
      const { target, headers, protocols } = it
      if (!port || !isTarget(target) || !isHeaders(headers)) return null
      if (!Array.isArray(protocols) || protocols.length > MAX_HEADERS || !protocols.every(isText)) return null
      return { ask: 'socket', target, headers, protocols, port }
    }
    default:
      return null
  }
}

/** A message on the port of a WebSocket, if it is one that can be. */
export function readSocketAsk(it: unknown): SocketAsk | null {
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
