import { MeshError } from './api.js'
import type { Exchange } from './api.js'
import { MAX_BODY_FRAME } from './frames.js'
import type { Frames } from './frames.js'
import { aborted } from './mux.js'
import type { FetchRequest, Reply } from './types.js'
import { describeError } from './types.js'

/** Opens a stream to the node. Errors: there is no node, or `signal`. */
export type Open = (signal?: AbortSignal) => Promise<Frames>

const NOTHING = new Uint8Array()

/** One HTTP exchange with an instance, on a stream of its own. Errors: `MeshError`; so does the body when it is cut. */
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
    // It may have been aborted while the stream was opened.
    if (signal?.aborted) stop()
    await frames.sendJson({ op: 'fetch', ...request })
    if (body) upload = sendBody(frames, body)
    const reply = await frames.receiveJson<Reply>()
    if (reply.reply === 'error') throw new MeshError('refused', describeError(reply.value))
    if (reply.reply !== 'response') throw new MeshError('failed', 'the node gave an answer that does not fit')
    const finish = (): void => {
      // Who has answered takes nothing more: what is left would wait for ever.
      if (upload?.isComplete === false) frames.abort(new MeshError('aborted', 'the answer came before all of the request was sent'))
      else frames.finish()
      done()
    }
    return { head: reply.value, body: bodyOf(frames, finish, done) }
  } catch (error) {
    done()
    // While the node is there, the cluster is not out of reach: it is this answer that did not come.
    const isCut = error instanceof MeshError && error.code === 'lost' && frames.isConnected
    throw fail(frames, isCut ? new MeshError('failed', 'the answer broke off before it began', { cause: error }) : error)
  }
}

/** The body that follows on a stream: frames that an empty one ends. It is fetched as fast as it is read. */
function bodyOf(frames: Frames, finish: () => void, done: () => void): ReadableStream<Uint8Array<ArrayBuffer>> {
  return new ReadableStream({
    async pull(controller): Promise<void> {
      try {
        const frame = await frames.receive()
        if (!frame) throw new MeshError('lost', 'the answer was cut: the instance or its node is gone')
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
      frames.abort(new MeshError('aborted', 'the answer was not read to its end'))
    },
  })
}

/** A request's body on its way. */
interface Upload {
  /** Whether all of it was sent. */
  readonly isComplete: boolean
  /** Reads no more of it. */
  stop(): void
}

/** Sends a body beside the wait for the answer, which may come before its end. */
function sendBody(frames: Frames, body: ReadableStream<Uint8Array>): Upload {
  const reader = body.getReader()
  const upload = { isComplete: false, stop: (): void => void reader.cancel().catch(() => {}) }
  const pump = async (): Promise<void> => {
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      for (let at = 0; at < next.value.byteLength; at += MAX_BODY_FRAME) {
        await frames.send(next.value.subarray(at, at + MAX_BODY_FRAME))
      }
    }
    // The stream stays open: its end would say that nobody waits for the answer.
    await frames.send(NOTHING)
    upload.isComplete = true
  }
  pump().catch((cause: unknown) => {
    frames.abort(new MeshError('failed', 'the body of the request could not be sent', { cause }))
    reader.cancel(cause).catch(() => {})
  })
  return upload
}

function fail(frames: Frames, error: unknown): MeshError {
  const failed = error instanceof MeshError ? error : new MeshError('failed', String(error), { cause: error })
  frames.abort(failed)
  return failed
}
