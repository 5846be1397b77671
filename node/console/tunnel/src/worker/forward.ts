/// <reference lib="webworker" />
/** Forwards one request of the browser to the app. */
import type { Cookies } from '../cookies'
import { allowScript } from '../csp'
import { cookieContext, initiator, requestHeaders, responseHeaders, values } from '../headers'
import { insertInHead } from '../html'
import { rewriteLocation } from '../location'
import type { HeaderList } from '../protocol'
import type { ChannelResponse, RpcChannel } from '../rpc-channel'
import { basicRealm, wasDeclined } from './basic-auth'
import { isEventSource } from './event-source'

declare const self: ServiceWorkerGlobalScope

/**
 * Maximum size of a request body that is sent with a `content-length`, in bytes. Simple servers need one; larger bodies
 * are chunked.
 */
const MAX_MEASURED = 1024 * 1024
/** Status codes whose responses have no body. */
const NO_BODY = [204, 205, 304]
const DECODED: ReadonlyMap<string, CompressionFormat> = new Map([
  ['gzip', 'gzip'],
  ['x-gzip', 'gzip'],
  ['deflate', 'deflate'],
])
/** Values of `content-encoding` that mean no encoding. */
const PLAIN = ['', 'identity', 'none', 'utf-8', 'binary']

/** Reports a response that a service worker cannot pass to a page; the message is for users. */
export class UnsupportedResponse extends Error {}

/** Reports that the user has to sign in to the app with HTTP Basic authentication. */
export class SignInRequired extends Error {
  /** Empty for none. */
  readonly realm: string
  /** Whether the app got the credentials that the user has entered. */
  readonly wasRejected: boolean

  constructor(realm: string, wasRejected: boolean) {
    super('a password is needed')
    this.realm = realm
    this.wasRejected = wasRejected
  }
}

/** Forwards a request for `url` and returns the response. Errors: `RpcError`, `UnsupportedResponse`, `SignInRequired`. */
export async function forward(
  request: Request,
  url: URL,
  channel: RpcChannel,
  cookies: Cookies,
  signal: AbortSignal,
): Promise<Response> {
  const from = initiator(request, self.location.origin)
  const context = cookieContext(request, from)
  const headers = requestHeaders(request, url, from, context ? await cookies.header(url.href, context) : '')
  const body = await measured(await requestBody(request))
  if (body?.length !== undefined) headers.push(['content-length', String(body.length)])
  const target = url.pathname + url.search
  const hold = isEventSource(request)
  const got = await channel.request({ method: request.method, target, headers, body: body?.stream ?? null, hold, signal })
  const problem = unsupported(request, got)
  if (problem !== null) {
    got.body.cancel().catch(() => {})
    throw new UnsupportedResponse(problem)
  }
  if (context !== null) await cookies.setFromResponse(url.href, values(got.headers, 'set-cookie'))
  const realm = request.mode === 'navigate' && got.status === 401 ? basicRealm(got.headers) : null
  if (realm === null || wasDeclined(url.href)) return toResponse(request, url, channel, got)
  got.body.cancel().catch(() => {})
  throw new SignInRequired(realm, got.authorized)
}

/** Returns why a response cannot be passed to a page; `null` if it can. */
function unsupported(request: Request, { status, headers }: ChannelResponse): string | null {
  // The range that the `Response` constructor accepts.
  if (status < 200 || status > 599) return `Its status is ${status}, which browsers do not accept.`
  const encoding = encodingOf(headers)
  // Browsers do not decode what comes from a service worker.
  if (isEmpty(request, status) || PLAIN.includes(encoding) || DECODED.has(encoding)) return null
  return `It is encoded as '${encoding}', which was not requested and cannot be decoded here.`
}

function encodingOf(headers: HeaderList): string {
  return values(headers, 'content-encoding').join(', ').trim().toLowerCase()
}

/** Tells whether a response has no body, whatever its headers say. */
function isEmpty(request: Request, status: number): boolean {
  return NO_BODY.includes(status) || request.method === 'HEAD'
}

function toResponse(request: Request, url: URL, channel: RpcChannel, got: ChannelResponse): Response {
  const without = new Set<string>()
  const empty = isEmpty(request, got.status)
  const format = request.method === 'HEAD' ? undefined : DECODED.get(encodingOf(got.headers))
  const page =
    request.mode === 'navigate' && /^(text\/html|application\/xhtml\+xml)\b/i.test(values(got.headers, 'content-type')[0] ?? '')
  if (format) without.add('content-encoding')
  if (format || page) without.add('content-length')
  const headers = responseHeaders(got.headers, without)
  const location = headers.get('location')
  if (location !== null) headers.set('location', rewriteLocation(location, url, channel.app))
  let body: ReadableStream<Uint8Array> = got.body
  if (empty) void body.cancel()
  else if (format) body = body.pipeThrough(new DecompressionStream(format) as TransformStream<Uint8Array, Uint8Array>)
  if (page && !empty) body = body.pipeThrough(insertInHead(injectedScript(headers)))
  return new Response(empty ? null : (body as ReadableStream<Uint8Array<ArrayBuffer>>), { status: got.status, headers })
}

/**
 * Returns the tag of the injected script, and adapts the headers of its page: the policy allows the script, and requests
 * carry a referrer, without which the app's own forms would look like another site's.
 */
function injectedScript(headers: Headers): string {
  const nonce = crypto.randomUUID()
  const policy = headers.get('content-security-policy')
  if (policy !== null) headers.set('content-security-policy', allowScript(policy, `${self.location.origin}/__vc/inject.js`, nonce))
  if (/\bno-referrer\s*$/.test(headers.get('referrer-policy') ?? '')) headers.set('referrer-policy', 'same-origin')
  return `<script nonce="${nonce}" src="/__vc/inject.js"></script>`
}

async function requestBody(request: Request): Promise<ReadableStream<Uint8Array> | null> {
  if (request.method === 'GET' || request.method === 'HEAD') return null
  if (request.body !== undefined) return request.body
  // Browsers without request streams hold the whole body on disk or in memory.
  const blob = await request.blob()
  return blob.size > 0 ? blob.stream() : null
}

/** Reads a body up to `MAX_MEASURED` to find its length in bytes; a longer body gets none. */
async function measured(
  body: ReadableStream<Uint8Array> | null,
): Promise<{ stream: ReadableStream<Uint8Array>; length?: number } | null> {
  if (body === null) return null
  const reader = body.getReader()
  const chunks: Uint8Array[] = []
  let length = 0
  while (length <= MAX_MEASURED) {
    const { done, value } = await reader.read()
    if (done) return { stream: concatenated(chunks, null), length }
    chunks.push(value)
    length += value.byteLength
  }
  return { stream: concatenated(chunks, reader) }
}

/** Returns a stream of the chunks that were read, followed by the rest of their stream. */
function concatenated(
  chunks: Uint8Array[],
  rest: ReadableStreamDefaultReader<Uint8Array> | null,
): ReadableStream<Uint8Array> {
  return new ReadableStream({
    async pull(controller) {
      const next = chunks.shift() ?? (await rest?.read())?.value
      if (next) controller.enqueue(next)
      else controller.close()
    },
    cancel: (reason) => rest?.cancel(reason),
  })
}
