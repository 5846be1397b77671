import { MeshError } from './api.js'
import { MAX_BODY_FRAME } from './frames.js'
import type { Frames } from './frames.js'
import { aborted } from './mux.js'
import type { FetchRequest, HeaderList, Reply, ResponseHead } from './types.js'

/** Opens a stream to the node. Errors: there is no node, or `signal`. */
export type Open = (signal?: AbortSignal) => Promise<Frames>

/** Answers that have no body, whatever their headers say. */
const BODILESS = [204, 205, 304]
const NOTHING = new Uint8Array()

const heads = new WeakMap<Response, ResponseHead>()

/**
 * What an instance answered, as it came: which instance it was, and the headers that a `Response` does not show
 * (`set-cookie`). Only for responses of {@link Mesh.fetch}.
 */
export function responseHead(response: Response): ResponseHead | undefined {
  return heads.get(response)
}

/** A request as it goes over the mesh, and its body. */
interface Outgoing {
  head: FetchRequest
  body: ReadableStream<Uint8Array> | null
  signal: AbortSignal | undefined
}

/** An HTTP request to an instance of a service, on a stream of its own. Errors: `MeshError`, never a short body. */
export async function fetchOver(
  open: Open,
  service: string,
  port: number | null,
  input: RequestInfo | URL,
  init: RequestInit = {},
): Promise<Response> {
  const { head, body, signal } = await outgoing(service, port, input, init)
  if (signal?.aborted) throw aborted(signal)
  const frames = await open(signal)
  const stop = (): void => frames.abort(aborted(signal as AbortSignal))
  signal?.addEventListener('abort', stop)
  const done = (): void => signal?.removeEventListener('abort', stop)
  try {
    await frames.sendJson({ op: 'fetch', ...head })
    if (body) sendBody(frames, body)
    const answer = await responseOf(frames, head.method, done)
    return answer
  } catch (error) {
    done()
    frames.abort(error instanceof MeshError ? error : new MeshError('failed', String(error)))
    throw error
  }
}

async function responseOf(frames: Frames, method: string, done: () => void): Promise<Response> {
  const reply = await frames.receiveJson<Reply>()
  if (reply.reply === 'error') throw new MeshError('refused', reply.value)
  if (reply.reply !== 'response') throw new MeshError('failed', 'the node gave an answer that does not fit')
  const { status, headers } = reply.value
  if (status < 200 || status > 599) throw new MeshError('failed', `the service answered with status ${status}`)
  const empty = method === 'HEAD' || BODILESS.includes(status)
  if (empty) {
    frames.finish()
    done()
  }
  const response = new Response(empty ? null : bodyOf(frames, done), { status, headers: fieldsOf(headers) })
  heads.set(response, reply.value)
  return response
}

/** The body that follows on a stream: frames that an empty one ends. It is fetched as fast as it is read. */
export function bodyOf(frames: Frames, done: () => void): ReadableStream<Uint8Array<ArrayBuffer>> {
  return new ReadableStream({
    async pull(controller): Promise<void> {
      try {
        const frame = await frames.receive()
        if (!frame) throw new MeshError('lost', 'the answer was cut: the instance or its machine is gone')
        if (frame.byteLength > 0) return controller.enqueue(frame as Uint8Array<ArrayBuffer>)
        frames.finish()
        done()
        controller.close()
      } catch (error) {
        frames.abort(error instanceof MeshError ? error : new MeshError('failed', String(error)))
        done()
        controller.error(error)
      }
    },
    cancel(): void {
      frames.abort(new MeshError('aborted', 'the answer was not read to its end'))
      done()
    },
  })
}

/** Sends a body beside the wait for the answer, which may come before its end. */
function sendBody(frames: Frames, body: ReadableStream<Uint8Array>): void {
  const reader = body.getReader()
  const pump = async (): Promise<void> => {
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      for (let at = 0; at < next.value.byteLength; at += MAX_BODY_FRAME) {
        await frames.send(next.value.subarray(at, at + MAX_BODY_FRAME))
      }
    }
    await frames.send(NOTHING)
  }
  pump().catch((cause: unknown) => {
    frames.abort(new MeshError('failed', 'the body of the request could not be sent', { cause }))
    reader.cancel(cause).catch(() => {})
  })
}

async function outgoing(
  service: string,
  port: number | null,
  input: RequestInfo | URL,
  init: RequestInit,
): Promise<Outgoing> {
  const request = input instanceof Request ? input : null
  const url = new URL(request?.url ?? String(input), 'http://service.invalid/')
  const method = (init.method ?? request?.method ?? 'GET').toUpperCase()
  // Made apart from a `Request`, which would drop `cookie`, `origin` and others.
  const headers = new Headers(init.headers ?? request?.headers)
  const content = init.body ?? (request && method !== 'GET' && method !== 'HEAD' ? (request.body ?? (await request.blob())) : null)
  const { body, type, length } = await bodyAsStream(content)
  if (type && !headers.has('content-type')) headers.set('content-type', type)
  if (length !== null && !headers.has('content-length')) headers.set('content-length', String(length))
  // What comes is handed on as it is: nobody would decode it.
  if (!headers.has('accept-encoding')) headers.set('accept-encoding', 'identity')
  const head: FetchRequest = {
    service,
    port,
    method,
    target: url.pathname + url.search,
    headers: [...headers],
    body: body !== null,
  }
  return { head, body, signal: init.signal ?? request?.signal }
}

/** A body as a stream, its type, and its length where that is known before it is sent. */
async function bodyAsStream(
  content: BodyInit | null,
): Promise<{ body: ReadableStream<Uint8Array> | null; type: string | null; length: number | null }> {
  if (content === null) return { body: null, type: null, length: null }
  const made = new Response(content)
  const type = made.headers.get('content-type')
  if (content instanceof ReadableStream) return { body: made.body, type, length: null }
  const blob = await made.blob()
  return { body: blob.stream(), type, length: blob.size }
}

/** Headers for a `Response`. Values are Latin-1, as they came. */
function fieldsOf(list: HeaderList): Headers {
  const headers = new Headers()
  for (const [name, value] of list) {
    try {
      headers.append(name, value)
    } catch {
      // A name or a value that HTTP does not allow: browsers do not show such either.
    }
  }
  return headers
}
