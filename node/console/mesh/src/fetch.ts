import { MeshError } from './api.js'
import type { Exchange } from './api.js'
import type { FetchRequest, HeaderList } from './types.js'

/** Status codes whose responses have no body. */
const NO_BODY = [204, 205, 304]

/** A request for the mesh, and its body. */
export interface Outgoing {
  request: FetchRequest
  body: ReadableStream<Uint8Array> | null
  signal: AbortSignal | undefined
}

/** Converts the arguments of `fetch` to a request. */
export async function outgoing(
  service: string,
  port: number | null,
  input: RequestInfo | URL,
  init: RequestInit = {},
): Promise<Outgoing> {
  const from = input instanceof Request ? input : null
  const url = new URL(from?.url ?? String(input), 'http://service.invalid/')
  const method = (init.method ?? from?.method ?? 'GET').toUpperCase()
  // Not through a `Request`, which drops forbidden headers such as `cookie` and `origin`.
  const headers = new Headers(init.headers ?? from?.headers)
  const { body, type, length } = await content(init.body ?? (from ? await bodyOf(from) : null))
  if (type && !headers.has('content-type')) headers.set('content-type', type)
  if (length !== null && !headers.has('content-length')) headers.set('content-length', String(length))
  // The response body is passed on without decoding.
  if (!headers.has('accept-encoding')) headers.set('accept-encoding', 'identity')
  const target = url.pathname + url.search
  return {
    request: { service, port, method, target, headers: [...headers], body: body !== null },
    body,
    signal: init.signal ?? from?.signal,
  }
}

/** Converts an exchange to a `Response`. Errors: `MeshError` if the status is not in 200 to 599. */
export async function responseOf({ head, body }: Exchange, method: string): Promise<Response> {
  const { status } = head
  if (status < 200 || status > 599) {
    await body.cancel()
    throw new MeshError('failed', `the service answered with status ${status}`)
  }
  const hasBody = method !== 'HEAD' && !NO_BODY.includes(status)
  if (!hasBody) await drain(body)
  return new Response(hasBody ? body : null, { status, headers: fieldsOf(head.headers) })
}

async function drain(body: ReadableStream<Uint8Array>): Promise<void> {
  const reader = body.getReader()
  while (!(await reader.read()).done);
}

/** Returns the body of a request, as a blob in browsers without request streams. */
async function bodyOf(request: Request): Promise<BodyInit | null> {
  if (request.method === 'GET' || request.method === 'HEAD') return null
  return request.body === undefined ? await request.blob() : request.body
}

/** Returns a body as a stream, its content type, and its length in bytes if it is known. */
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
      // Invalid in HTTP; browsers drop such headers as well.
    }
  }
  return headers
}
