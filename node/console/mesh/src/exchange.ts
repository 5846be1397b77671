import { MeshError, refusal } from './api.js'
import type { Exchange } from './api.js'
import { MAX_BODY_FRAME } from './frames.js'
import type { Frames } from './frames.js'
import { aborted } from './mux.js'
import type { FetchRequest, Reply } from './types.js'

/** Opens a stream to the active node. Errors: `MeshError` if there is none or `signal` aborts. */
export type Open = (signal?: AbortSignal) => Promise<Frames>

/** The empty frame that ends a body. */
const END_OF_BODY = new Uint8Array()

/**
 * Sends an HTTP request to an instance, on a stream of its own, and returns the response once its head has arrived.
 * Errors: `MeshError`, also from the body's stream if it is cut off.
 */
export async function exchange(
  open: Open,
  request: FetchRequest,
  body: ReadableStream<Uint8Array> | null,
  signal?: AbortSignal,
): Promise<Exchange> {
  if (signal?.aborted) throw aborted(signal)
  const frames = await open(signal)
  let upload: Upload | null = null
  const done = (): void => {
    signal?.removeEventListener('abort', stop)
    upload?.stop()
  }
  const stop = (): void => {
    done()
    frames.abort(aborted(signal as AbortSignal))
  }
  signal?.addEventListener('abort', stop)
  try {
    // `signal` may have aborted while the stream was opened.
    if (signal?.aborted) stop()
    await frames.sendJson({ op: 'fetch', ...request })
    if (body) upload = sendBody(frames, body)
    const reply = await frames.receiveJson<Reply>()
    if (reply.reply === 'error') throw refusal(reply.value)
    if (reply.reply !== 'response') throw new MeshError('failed', 'the node sent an unexpected reply to a fetch')
    const finish = (): void => {
      // The instance reads no more of the request once it has answered, so the rest would never be sent.
      if (upload?.isComplete === false) frames.abort(new MeshError('aborted', 'the response ended before the request was sent'))
      else frames.finish()
      done()
    }
    return { head: reply.value, body: bodyOf(frames, finish, done) }
  } catch (error) {
    done()
    // Only the stream was lost, not the connection to the node.
    const isCut = error instanceof MeshError && error.code === 'lost' && frames.isConnected
    throw fail(frames, isCut ? new MeshError('failed', 'the instance closed the stream before its response', { cause: error }) : error)
  }
}

/** Returns the body that follows on a stream: frames up to an empty one, received as fast as the body is read. */
function bodyOf(frames: Frames, finish: () => void, done: () => void): ReadableStream<Uint8Array<ArrayBuffer>> {
  return new ReadableStream({
    async pull(controller): Promise<void> {
      try {
        const frame = await frames.receive()
        if (!frame) throw new MeshError('lost', 'the response was cut off: the instance or its node stopped')
        if (frame.byteLength > 0) return controller.enqueue(frame as Uint8Array<ArrayBuffer>)
        finish()
        controller.close()
      } catch (error) {
        done()
        controller.error(fail(frames, error))
      }
    },
    cancel(): void {
      done()
      frames.abort(new MeshError('aborted', 'the response body was cancelled'))
    },
  })
}

/** The upload of a request body. */
interface Upload {
  /** Whether the whole body was sent. */
  readonly isComplete: boolean
  /** Cancels the body. */
  stop(): void
}

/** Sends a body while the caller waits for the response, which may arrive before the body ends. */
function sendBody(frames: Frames, body: ReadableStream<Uint8Array>): Upload {
  const reader = body.getReader()
  const upload = { isComplete: false, stop: (): void => void reader.cancel().catch(() => {}) }
  const copy = async (): Promise<void> => {
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      for (let at = 0; at < next.value.byteLength; at += MAX_BODY_FRAME) {
        await frames.send(next.value.subarray(at, at + MAX_BODY_FRAME))
      }
    }
    // The stream stays open: the node takes its end for an abort.
    await frames.send(END_OF_BODY)
    upload.isComplete = true
  }
  copy().catch((cause: unknown) => {
    frames.abort(new MeshError('failed', 'the request body could not be sent', { cause }))
    reader.cancel(cause).catch(() => {})
  })
  return upload
}

function fail(frames: Frames, error: unknown): MeshError {
  const failed = error instanceof MeshError ? error : new MeshError('failed', String(error), { cause: error })
  frames.abort(failed)
  return failed
}
