/// <reference lib="webworker" />
/** One request of the browser, answered by the app. */
import type { Cookies } from '../cookies'
import { allowScript } from '../csp'
import { cookieContext, incoming, initiator, outgoing, values } from '../headers'
import { insertInHead } from '../html'
import type { Incoming, Line } from '../line'
import { rewriteLocation } from '../location'
import type { HeaderList } from '../protocol'

declare const self: ServiceWorkerGlobalScope

/** A body up to this size is sent with its length, which simple servers need; a larger one as it comes. */
const MEASURED = 1024 * 1024
const NO_BODY = [204, 205, 304]
const DECODED: ReadonlyMap<string, CompressionFormat> = new Map([
  ['gzip', 'gzip'],
  ['x-gzip', 'gzip'],
  ['deflate', 'deflate'],
])
/** What servers say that encode nothing. */
const PLAIN = ['', 'identity', 'none', 'utf-8', 'binary']

/** There is an answer, but none that a page can get. The message is for people. */
export class UnfitAnswer extends Error {}

/** Passes a request for `url` on and its answer back; `signal`: nobody waits for it. Errors: `LineError`, `UnfitAnswer`. */
export async function answer(
  request: Request,
  url: URL,
  line: Line,
  cookies: Cookies,
  signal: AbortSignal,
): Promise<Response> {
  const from = initiator(request, self.location.origin)
  const context = cookieContext(request, from)
  const headers = outgoing(request, url, from, context ? await cookies.header(url.href, context) : '')
  const body = await measured(await requestBody(request))
  if (body?.length !== undefined) headers.push(['content-length', String(body.length)])
  const target = url.pathname + url.search
  const got = await line.request({ method: request.method, target, headers, body: body?.stream ?? null, signal })
  const why = unfit(request, got)
  if (why !== null) {
    got.body.cancel().catch(() => {})
    throw new UnfitAnswer(why)
  }
  if (context !== null) await cookies.take(url.href, values(got.headers, 'set-cookie'))
  return response(request, url, line, got)
}

/** Why an answer is none that a page can get; `null`: it is one. */
function unfit(request: Request, { status, headers }: Incoming): string | null {
  // Others a `Response` cannot have.
  if (status < 200 || status > 599) return `Its status is ${status}, which browsers do not take.`
  const encoding = encodingOf(headers)
  // Handed on as it is, it would look like what it is not: browsers do not decode what comes from a service worker.
  if (isEmpty(request, status) || PLAIN.includes(encoding) || DECODED.has(encoding)) return null
  return `It is encoded as '${encoding}', which was not asked for and cannot be decoded here.`
}

function encodingOf(headers: HeaderList): string {
  return values(headers, 'content-encoding').join(', ').trim().toLowerCase()
}

/** Whether an answer has no body, whatever its headers say. */
function isEmpty(request: Request, status: number): boolean {
  return NO_BODY.includes(status) || request.method === 'HEAD'
}

function response(request: Request, url: URL, line: Line, got: Incoming): Response {
  const without = new Set<string>()
  const empty = isEmpty(request, got.status)
  const format = request.method === 'HEAD' ? undefined : DECODED.get(encodingOf(got.headers))
  const page =
    request.mode === 'navigate' && /^(text\/html|application\/xhtml\+xml)\b/i.test(values(got.headers, 'content-type')[0] ?? '')
  if (format) without.add('content-encoding')
  if (format || page) without.add('content-length')
  const headers = incoming(got.headers, without)
  const location = headers.get('location')
  if (location !== null) headers.set('location', rewriteLocation(location, url, line.app))
  let body: ReadableStream<Uint8Array> = got.body
  if (empty) void body.cancel()
  else if (format) body = body.pipeThrough(new DecompressionStream(format) as TransformStream<Uint8Array, Uint8Array>)
  if (page && !empty) body = body.pipeThrough(insertInHead(ourScript(headers)))
  return new Response(empty ? null : (body as ReadableStream<Uint8Array<ArrayBuffer>>), { status: got.status, headers })
}

/** Lets our script into a page, and has the page say where requests come from: forms that do not look like another site's. */
function ourScript(headers: Headers): string {
  const nonce = crypto.randomUUID()
  const policy = headers.get('content-security-policy')
  if (policy !== null) headers.set('content-security-policy', allowScript(policy, `${self.location.origin}/__vc/inject.js`, nonce))
  if (/\bno-referrer\s*$/.test(headers.get('referrer-policy') ?? '')) headers.set('referrer-policy', 'same-origin')
  return `<script nonce="${nonce}" src="/__vc/inject.js"></script>`
}

async function requestBody(request: Request): Promise<ReadableStream<Uint8Array> | null> {
  if (request.method === 'GET' || request.method === 'HEAD') return null
  if (request.body !== undefined) return request.body
  // Where requests have no streams, what is sent is on disk or in memory already.
  const blob = await request.blob()
  return blob.size > 0 ? blob.stream() : null
}

async function measured(
  body: ReadableStream<Uint8Array> | null,
): Promise<{ stream: ReadableStream<Uint8Array>; length?: number } | null> {
  if (body === null) return null
  const reader = body.getReader()
  const begun: Uint8Array[] = []
  let length = 0
  while (length <= MEASURED) {
    const { done, value } = await reader.read()
    if (done) return { stream: continued(begun, null), length }
    begun.push(value)
    length += value.byteLength
  }
  return { stream: continued(begun, reader) }
}

/** What was read of a stream, and then the rest. */
function continued(
  begun: Uint8Array[],
  rest: ReadableStreamDefaultReader<Uint8Array> | null,
): ReadableStream<Uint8Array> {
  return new ReadableStream({
    async pull(controller) {
      const next = begun.shift() ?? (await rest?.read())?.value
      if (next) controller.enqueue(next)
      else controller.close()
    },
    cancel: (reason) => rest?.cancel(reason),
  })
}
