import { MeshError, refusal } from './api.js'
import type { RunningCommand } from './api.js'
import type { Open } from './exchange.js'
import type { Frames } from './frames.js'
import type { ApiError, ExecRequest, Reply } from './types.js'

/** Kinds of frames (`protocol/src/exec.rs`). */
const Kind = { stdin: 0, stdinEnd: 1, resize: 2, stdout: 3, stderr: 4, exit: 5, failed: 6 } as const
/** Maximum number of bytes in a frame to the command. */
const MAX_CHUNK = 32 * 1024
/** Interval at which a side that sends nothing sends an empty frame, in milliseconds; after 60 s without any it counts as lost. */
const KEEPALIVE_INTERVAL = 15_000

/** Starts a command in an instance, on a stream of its own. Errors: `MeshError`. */
export async function exec(open: Open, request: ExecRequest, signal?: AbortSignal): Promise<RunningCommand> {
  const frames = await open(signal)
  try {
    await frames.sendJson({ op: 'exec', ...request })
    for (;;) {
      const reply = await frames.receiveJson<Reply>()
      if (reply.reply === 'ready') return new Command(frames)
      if (reply.reply === 'error') throw refusal(reply.value)
      if (reply.reply !== 'keep_alive') throw new MeshError('failed', 'the node sent an unexpected reply to a command')
    }
  } catch (error) {
    frames.abort(error instanceof MeshError ? error : new MeshError('failed', String(error)))
    throw error
  }
}

class Command implements RunningCommand {
  readonly #frames: Frames
  readonly #keepalive: ReturnType<typeof setInterval>
  /** Serializes what is sent. */
  #queue: Promise<void> = Promise.resolve()

  constructor(frames: Frames) {
    this.#frames = frames
    this.#keepalive = setInterval(() => this.#send(Kind.stdin, new Uint8Array()), KEEPALIVE_INTERVAL)
  }

  async *output(): AsyncGenerator<Uint8Array, number> {
    try {
      for (;;) {
        const frame = await this.#frames.receive()
        if (!frame) throw new MeshError('lost', 'the connection to the command was lost')
        const payload = frame.subarray(1)
        switch (frame[0]) {
          case Kind.stdout:
          case Kind.stderr:
            if (payload.byteLength > 0) yield payload
            break
          case Kind.exit:
            return Number(new DataView(payload.buffer, payload.byteOffset, 8).getBigInt64(0))
          case Kind.failed:
            throw refusal(JSON.parse(new TextDecoder().decode(payload)) as ApiError)
        }
      }
    } finally {
      this.close()
    }
  }

  write(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.byteLength; at += MAX_CHUNK) this.#send(Kind.stdin, bytes.slice(at, at + MAX_CHUNK))
  }

  resize(columns: number, rows: number): void {
    const size = new DataView(new ArrayBuffer(4))
    size.setUint16(0, columns)
    size.setUint16(2, rows)
    this.#send(Kind.resize, new Uint8Array(size.buffer))
  }

  close(): void {
    clearInterval(this.#keepalive)
    this.#frames.abort(new MeshError('aborted', 'the command was cancelled'))
  }

  #send(kind: number, payload: Uint8Array): void {
    // `output` reports a stream that was lost.
    this.#queue = this.#queue.then(() => this.#frames.send(Uint8Array.of(kind), payload)).catch(() => {})
  }
}
