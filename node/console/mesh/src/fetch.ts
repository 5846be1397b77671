import { MeshError } from './api.js'
import type { Exchange } from './api.js'
import type { FetchRequest, HeaderList } from './types.js'

/** Answers that have no body, whatever their headers say. */
const BODILESS = [204, 205, 304]

/** A request as it goes over the mesh, and its body. */
export interface Outgoing {
  request: FetchRequest
  body: ReadableStream<Uint8Array> | null
  signal: AbortSignal | undefined
}

/** What the arguments of `fetch` ask for. */
export async function outgoing(
  service: string,
  port: number | null,
  input: RequestInfo | URL,
  init: RequestInit = {},
): Promise<Outgoing> {
  const from = input instanceof Request ? input : null
  const url = new URL(from?.url ?? String(input), 'http://service.invalid/')
  const method = (init.method ?? from?.method ?? 'GET').toUpperCase()
  // Made apart from a `Request`, which would drop `cookie`, `origin` and others.
  const headers = new Headers(init.headers ?? from?.headers)
  const { body, type, length } = await content(init.body ?? (from ? await bodyOf(from) : null))
  if (type && !headers.has('content-type')) headers.set('content-type', type)
  if (length !== null && !headers.has('content-length')) headers.set('content-length', String(length))
  // What comes is handed on as it is: nobody would decode it.
  if (!headers.has('accept-encoding')) headers.set('accept-encoding', 'identity')
  const target = url.pathname + url.search
  return {
    request: { service, port, method, target, headers: [...headers], body: body !== null },
    body,
    signal: init.signal ?? from?.signal,
  }
}

/** An answer as a `Response`. Errors: its status is none that a `Response` can have. */
export async function responseOf({ head, body }: Exchange, method: string): Promise<Response> {
  const { status } = head
  if (status < 200 || status > 599) {
    await body.cancel()
    throw new MeshError('failed', `the service answered with status ${status}`)
  }
  const hasBody = method !== 'HEAD' && !BODILESS.includes(status)
  if (!hasBody) await drain(body)
  return new Response(hasBody ? body : null, { status, headers: fieldsOf(head.headers) })
}

async function drain(body: ReadableStream<Uint8Array>): Promise<void> {
  const reader = body.getReader()
  while (!(await reader.read()).done);
}

/** Not every browser has a request's body as a stream. */
async function bodyOf(request: Request): Promise<BodyInit | null> {
  if (request.method === 'GET' || request.method === 'HEAD') return null
  return request.body === undefined ? await request.blob() : request.body
}

/** A body as a stream, its type, and its length where that is known before it is sent. */
async function content(
  given: BodyInit | null,
): Promise<{ body: ReadableStream<Uint8Array> | null; type: string | null; length: number | null }> {
  if (given === null) return { body: null, type: null, length: null }
  const made = new Response(given)
  const type = made.headers.get('content-type')
  if (given instanceof ReadableStream) return { body: made.body, type, length: null }
  const blob = await made.blob()
  return { body: blob.stream(), type, length: blob.size }
}

function fieldsOf(list: HeaderList): Headers {
  const headers = new Headers()
  for (const [name, value] of list) {
    try {
      headers.append(name, value)
    } catch {
      // What HTTP does not allow, browsers do not show either.
    }
  }
  return headers
}
