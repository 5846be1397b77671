import { MeshError, refusal } from './api.js'
import type { MeshSocket } from './api.js'
import type { Open } from './exchange.js'
import type { Frames } from './frames.js'
import type { Reply, SocketRequest } from './types.js'

/** Maximum size of a message, in bytes. */
const MAX_MESSAGE = 1024 * 1024
/** Maximum length of a close reason, in bytes (RFC 6455, section 5.5). */
const MAX_REASON = 123
/** Frame kinds, which are the opcodes of RFC 6455. */
const TEXT = 1
const BINARY = 2
const CLOSE = 8
/** Time after a close without any progress in sending after which the stream is aborted, in milliseconds. */
const CLOSE_TIMEOUT = 60_000
/** Close codes that are reported and never sent: no status received, abnormal closure (RFC 6455, section 7.4.1). */
const NO_STATUS = 1005
const ABNORMAL_CLOSURE = 1006

const encoder = new TextEncoder()
const decoder = new TextDecoder()

/**
 * A WebSocket to an instance, on a stream of its own. In addition to the events of `WebSocket`, `drain` reports each
 * message that has left.
 */
export class Socket extends EventTarget implements MeshSocket {
  readyState: 0 | 1 | 2 | 3 = 0
  protocol = ''
  bufferedAmount = 0
  binaryType: 'blob' | 'arraybuffer' = 'blob'
  onopen: ((event: Event) => void) | null = null
  onmessage: ((event: MessageEvent) => void) | null = null
  onerror: ((event: Event) => void) | null = null
  onclose: ((event: CloseEvent) => void) | null = null

  #frames: Frames | null = null
  readonly #cancel = new AbortController()
  /** Serializes messages and the close. */
  #sendQueue: Promise<void> = Promise.resolve()
  /** Number of frames that have left. */
  #sentCount = 0
  #timer: ReturnType<typeof setTimeout> | undefined

  constructor(open: Open, request: SocketRequest) {
    super()
    // As listeners, so that the browser reports what they throw.
    this.addEventListener('open', (event) => this.onopen?.(event))
    this.addEventListener('message', (event) => this.onmessage?.(event as MessageEvent))
    this.addEventListener('error', (event) => this.onerror?.(event))
    this.addEventListener('close', (event) => this.onclose?.(event as CloseEvent))
    void this.#run(open, request)
  }

  send(data: string | ArrayBuffer | ArrayBufferView | Blob): void {
    if (this.readyState === 0) throw new DOMException('the WebSocket is still connecting', 'InvalidStateError')
    const [kind, bytes] = typeof data === 'string' ? [TEXT, encoder.encode(data)] : [BINARY, bytesOf(data)]
    const size = bytes instanceof Blob ? bytes.size : bytes.byteLength
    if (size > MAX_MESSAGE) throw new MeshError('failed', `a message of ${size} bytes is too large; the limit is ${MAX_MESSAGE}`)
    this.bufferedAmount += size
    if (this.readyState !== 1) return
    this.#enqueue(async (frames) => {
      await frames.send(Uint8Array.of(kind), bytes instanceof Blob ? new Uint8Array(await bytes.arrayBuffer()) : bytes)
      this.bufferedAmount -= size
      this.dispatchEvent(new Event('drain'))
    })
  }

  close(code?: number, reason = ''): void {
    if (code !== undefined && code !== 1000 && (code < 3000 || code > 4999)) {
      throw new DOMException(`${code} is not a valid close code: use 1000 or 3000 to 4999`, 'InvalidAccessError')
    }
    const text = encoder.encode(reason)
    if (text.byteLength > MAX_REASON) throw new DOMException(`the close reason is longer than ${MAX_REASON} bytes`, 'SyntaxError')
    if (this.readyState >= 2) return
    const wasOpen = this.readyState === 1
    this.readyState = 2
    if (!wasOpen) return this.#cancel.abort()
    const said = code === undefined ? [] : [Uint8Array.of(code >> 8, code & 0xff), text]
    this.#enqueue((frames) => frames.send(Uint8Array.of(CLOSE), ...said))
    this.#armCloseTimer()
  }

  async #run(open: Open, request: SocketRequest): Promise<void> {
    let end = { code: ABNORMAL_CLOSURE, reason: '', wasClean: false }
    try {
      const frames = await this.#connect(open, request)
      for (let frame = await frames.receive(); frame; frame = await frames.receive()) {
        const [kind] = frame
        const rest = frame.subarray(1)
        if (kind === CLOSE) {
          end = { code: rest.byteLength < 2 ? NO_STATUS : (rest[0]! << 8) | rest[1]!, reason: decoder.decode(rest.subarray(2)), wasClean: true }
          if (this.readyState === 1) this.#enqueue((frames) => frames.send(frame))
          break
        }
        if (this.readyState !== 1) continue
        if (kind === TEXT) this.dispatchEvent(new MessageEvent('message', { data: decoder.decode(rest) }))
        else if (kind === BINARY) this.dispatchEvent(new MessageEvent('message', { data: this.#binary(rest) }))
        else throw new MeshError('failed', 'the node sent a WebSocket frame of an unknown kind')
      }
      // After its close the peer may stop reading and end the stream; the rest is then not sent.
      const isOver = frames.receive().then(() => false, () => false)
      if (await Promise.race([this.#sendQueue.then(() => true), isOver])) frames.finish()
      else frames.abort(new MeshError('aborted', 'the instance closed the WebSocket'))
    } catch (error) {
      end.reason = error instanceof MeshError ? error.message : ''
      this.#frames?.abort(error instanceof MeshError ? error : new MeshError('failed', String(error)))
    }
    clearTimeout(this.#timer)
    this.readyState = 3
    if (!end.wasClean) this.dispatchEvent(new Event('error'))
    this.dispatchEvent(new CloseEvent('close', end))
  }

  async #connect(open: Open, request: SocketRequest): Promise<Frames> {
    const frames = await open(this.#cancel.signal)
    this.#frames = frames
    const stop = (): void => frames.abort(new MeshError('aborted', 'the WebSocket was closed while connecting'))
    this.#cancel.signal.addEventListener('abort', stop)
    if (this.#cancel.signal.aborted) stop()
    await frames.sendJson({ op: 'socket', ...request })
    const reply = await frames.receiveJson<Reply>()
    if (reply.reply === 'error') throw refusal(reply.value)
    if (reply.reply !== 'response') throw new MeshError('failed', 'the node sent an unexpected reply to a WebSocket request')
    const { status, headers } = reply.value
    if (status !== 101) throw new MeshError('refused', `the service answered with status ${status}`)
    this.protocol = headers.find(([name]) => name.toLowerCase() === 'sec-websocket-protocol')?.[1] ?? ''
    this.readyState = 1
    this.dispatchEvent(new Event('open'))
    return frames
  }

  /** Aborts the stream if nothing leaves for `CLOSE_TIMEOUT`: an instance that reads nothing never answers the close. */
  #armCloseTimer(): void {
    const before = this.#sentCount
    this.#timer = setTimeout(() => {
      if (this.#sentCount > before) this.#armCloseTimer()
      else this.#frames?.abort(new MeshError('aborted', 'the instance did not answer the close'))
    }, CLOSE_TIMEOUT)
  }

  #enqueue(step: (frames: Frames) => Promise<void>): void {
    const frames = this.#frames
    if (!frames) return
    const send = async (): Promise<void> => {
      await step(frames)
      this.#sentCount += 1
    }
    // `#run` reports a lost stream as well; a blob that cannot be read ends the stream here.
    this.#sendQueue = this.#sendQueue.then(send).catch((cause: unknown) => {
      frames.abort(new MeshError('failed', 'a message could not be sent', { cause }))
    })
  }

  #binary(bytes: Uint8Array): Blob | ArrayBuffer {
    const copy = new Uint8Array(bytes)
    return this.binaryType === 'blob' ? new Blob([copy]) : copy.buffer
  }
}

/** Copies the bytes of a message: the caller may change them afterwards. */
function bytesOf(data: ArrayBuffer | ArrayBufferView | Blob): Uint8Array | Blob {
  if (data instanceof Blob) return data
  if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice()
  return new Uint8Array(data.slice(0))
}
