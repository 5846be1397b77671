import type { Stream } from '@libp2p/interface'
import { Uint8ArrayList } from 'uint8arraylist'

import { MeshError } from './api.js'

/** Maximum size of a frame between a client and a node, in bytes. */
export const MAX_FRAME = 4 * 1024 * 1024
/** Maximum size of a frame of a body, in bytes. */
export const MAX_BODY_FRAME = 64 * 1024
/** Number of received and unread bytes at which the stream is paused. */
const PAUSE_ABOVE = 1024 * 1024
/** Number of received and unread bytes at which the stream is resumed. */
const RESUME_BELOW = 256 * 1024

const encoder = new TextEncoder()
const decoder = new TextDecoder()

/** Encodes a frame: its length as a big-endian u32, then the pieces. */
export function encodeFrame(...pieces: Uint8Array[]): Uint8Array {
  const length = pieces.reduce((sum, piece) => sum + piece.byteLength, 0)
  const frame = new Uint8Array(4 + length)
  new DataView(frame.buffer).setUint32(0, length)
  let at = 4
  for (const piece of pieces) {
    frame.set(piece, at)
    at += piece.byteLength
  }
  return frame
}

/** Decodes frames from a byte stream. */
export class FrameDecoder {
  readonly #bytes = new Uint8ArrayList()
  readonly #max: number

  /** Accepts frames of at most `max` bytes. */
  constructor(max: number) {
    this.#max = max
  }

  /** Appends received bytes. They are not copied and must not be changed. */
  push(bytes: Uint8Array | Uint8ArrayList): void {
    this.#bytes.append(bytes)
  }

  /** Returns the next frame; `null` if it is incomplete. Errors: `MeshError` if it is too large. */
  next(): Uint8Array | null {
    if (this.#bytes.byteLength < 4) return null
    const length = this.#bytes.getUint32(0)
    if (length > this.#max) {
      throw new MeshError('failed', `the node sent a frame of ${length} bytes; the limit is ${this.#max}`)
    }
    if (this.#bytes.byteLength < 4 + length) return null
    const frame = this.#bytes.subarray(4, 4 + length)
    this.#bytes.consume(4 + length)
    return frame
  }

  /** Whether an incomplete frame is buffered. */
  get isPartial(): boolean {
    return this.#bytes.byteLength > 0
  }

  /** Returns the buffered bytes. */
  rest(): Uint8Array {
    return this.#bytes.subarray()
  }
}

/** The end of a stream, with the error if it did not end properly. */
type End = { error: MeshError | null }

/** Sends and receives frames on a stream. Unread frames pause the stream (backpressure), so that the node stops sending. */
export class Frames {
  readonly #stream: Stream
  readonly #decoder: FrameDecoder
  readonly #ready: Uint8Array[] = []
  #bytes = 0
  #isResuming = false
  #ended: End | null = null
  #notifyReceiver: (() => void) | null = null
  readonly #isConnected: () => boolean

  /** Takes over a stream, with frames of at most `max` bytes. `isConnected` tells whether the connection below it is open. */
  constructor(stream: Stream, max = MAX_FRAME, isConnected: () => boolean = () => false) {
    this.#stream = stream
    this.#isConnected = isConnected
    this.#decoder = new FrameDecoder(max)
    stream.addEventListener('message', this.#onMessage)
    stream.addEventListener('end', this.#onEnd)
    stream.addEventListener('close', this.#onClose)
  }

  /** Whether the connection to the node is open, even if the stream has ended. */
  get isConnected(): boolean {
    return this.#isConnected()
  }

  /**
   * Receives the next frame; returns `null` at the end of the stream. Errors: `MeshError` if the stream is cut off or a
   * frame is too large.
   */
  async receive(): Promise<Uint8Array | null> {
    for (;;) {
      const frame = this.#ready.shift()
      if (frame) {
        this.#bytes -= frame.byteLength
        if (this.#bytes <= RESUME_BELOW && this.#stream.readStatus === 'paused') this.#resume()
        return frame
      }
      if (this.#ended?.error) throw this.#ended.error
      if (this.#ended) return null
      await new Promise<void>((resolve) => (this.#notifyReceiver = resolve))
    }
  }

  /** Receives the next frame as JSON, whose shape is not checked. Errors: `MeshError` if there is none or it is not JSON. */
  async receiveJson<T>(): Promise<T> {
    const frame = await this.receive()
    if (!frame) throw new MeshError('lost', 'the node ended the stream before it answered')
    try {
      return JSON.parse(decoder.decode(frame)) as T
    } catch (cause) {
      throw new MeshError('failed', 'the node sent a reply that is not JSON', { cause })
    }
  }

  /** Sends a frame; resolves when the stream has capacity for another. Errors: `MeshError` if the stream has ended. */
  async send(...pieces: Uint8Array[]): Promise<void> {
    try {
      if (this.#stream.send(encodeFrame(...pieces))) return
      // `drain` also fires for capacity on the connection, while the stream's own window may still be full.
      do await this.#drained()
      while (this.#stream.writableNeedsDrain)
    } catch (cause) {
      throw this.#ended?.error ?? lost(cause)
    }
  }

  /** Sends a value as a JSON frame. Errors: as `send`. */
  async sendJson(value: unknown): Promise<void> {
    await this.send(encoder.encode(JSON.stringify(value)))
  }

  /** Ends the outgoing direction. */
  finish(): void {
    this.#stream.close().catch(() => this.#stream.abort(new Error('the stream could not be closed')))
  }

  /** Ends both directions at once; pending calls fail with `error`. */
  abort(error: MeshError): void {
    this.#finishWith(error)
    this.#stream.abort(error)
  }

  /** Returns the stream, with the bytes that were not received as frames put back. */
  detach(): Stream {
    this.#stream.removeEventListener('message', this.#onMessage)
    this.#stream.removeEventListener('end', this.#onEnd)
    this.#stream.removeEventListener('close', this.#onClose)
    const rest = new Uint8ArrayList(...this.#ready.map((frame) => encodeFrame(frame)), this.#decoder.rest())
    if (rest.byteLength > 0) this.#stream.unshift(rest)
    return this.#stream
  }

  readonly #onMessage = (event: { data: Uint8Array | Uint8ArrayList }): void => {
    try {
      this.#decoder.push(event.data)
      for (let frame = this.#decoder.next(); frame; frame = this.#decoder.next()) {
        this.#ready.push(frame)
        this.#bytes += frame.byteLength
      }
    } catch (error) {
      this.abort(error instanceof MeshError ? error : lost(error))
      return
    }
    this.#pauseIfFull()
    this.#notify()
  }

  /** Pauses the stream while too much is unread. */
  #pauseIfFull(): void {
    if (!this.#isResuming && this.#bytes >= PAUSE_ABOVE && this.#stream.readStatus === 'readable') this.#stream.pause()
  }

  /**
   * Resumes the stream. It first delivers the bytes that it has buffered and then lets the node send more. A pause during the
   * delivery would be lost, so it is postponed to the end.
   */
  #resume(): void {
    this.#isResuming = true
    try {
      this.#stream.resume()
    } catch (cause) {
      // The connection is closed; the buffered bytes have been delivered.
      this.#finishWith(lost(cause))
    }
    this.#isResuming = false
    this.#pauseIfFull()
  }

  readonly #onEnd = (): void => {
    // `close` follows with the error.
    if (this.#stream.status === 'reset' || this.#stream.status === 'aborted') return
    this.#finishWith(this.#decoder.isPartial ? lost() : null)
  }

  readonly #onClose = (event: Event & { error?: Error }): void => {
    if (event.error) this.#finishWith(lost(event.error))
    // With bytes still buffered in the stream, its `end` event follows.
    else if (this.#stream.readBufferLength === 0) this.#onEnd()
  }

  #finishWith(error: MeshError | null): void {
    this.#ended ??= { error }
    this.#notify()
  }

  #notify(): void {
    this.#notifyReceiver?.()
    this.#notifyReceiver = null
  }

  #drained(): Promise<void> {
    return new Promise((resolve, reject) => {
      const done = (event: Event & { error?: Error }): void => {
        this.#stream.removeEventListener('drain', done)
        this.#stream.removeEventListener('close', done)
        if (event.type === 'close') reject(event.error ?? new Error('closed'))
        else resolve()
      }
      this.#stream.addEventListener('drain', done)
      this.#stream.addEventListener('close', done)
    })
  }
}

function lost(cause?: unknown): MeshError {
  return new MeshError('lost', 'the connection to the node was lost', { cause })
}
