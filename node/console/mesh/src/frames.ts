import type { Stream } from '@libp2p/interface'
import { Uint8ArrayList } from 'uint8arraylist'

import { MeshError } from './api.js'

/** The largest frame between a client and a node, in bytes. */
export const MAX_FRAME = 4 * 1024 * 1024
/** The largest frame of a body, in bytes. */
export const MAX_BODY_FRAME = 64 * 1024
/** With so many bytes of frames that nobody has taken yet, the stream rests. */
const PAUSE_ABOVE = 1024 * 1024
/** With so few it goes on. */
const RESUME_BELOW = 256 * 1024

const encoder = new TextEncoder()
const decoder = new TextDecoder()

/** A frame: what it holds, in pieces, behind its length as 4 bytes, big endian. */
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

/** Finds frames in bytes, wherever those were split. */
export class FrameDecoder {
  readonly #bytes = new Uint8ArrayList()
  readonly #max: number

  /** Frames of at most `max` bytes. */
  constructor(max: number) {
    this.#max = max
  }

  /** Takes the bytes that came next. They are not copied: do not change them. */
  push(bytes: Uint8Array | Uint8ArrayList): void {
    this.#bytes.append(bytes)
  }

  /** The next frame; `null`: it is not complete yet. Errors: it is larger than allowed. */
  next(): Uint8Array | null {
    if (this.#bytes.byteLength < 4) return null
    const length = this.#bytes.getUint32(0)
    if (length > this.#max) {
      throw new MeshError('failed', `the node sent a frame of ${length} bytes; ${this.#max} are allowed`)
    }
    if (this.#bytes.byteLength < 4 + length) return null
    const frame = this.#bytes.subarray(4, 4 + length)
    this.#bytes.consume(4 + length)
    return frame
  }

  /** Whether it has the beginning of a frame. */
  get isPartial(): boolean {
    return this.#bytes.byteLength > 0
  }

  /** What is left, which is no frame of this stream. */
  rest(): Uint8Array {
    return this.#bytes.subarray()
  }
}

/** How a stream came to its end. */
type End = { error: MeshError | null }

/** Frames on a stream, both ways. What nobody takes stays with the node: the stream's window closes. */
export class Frames {
  readonly #stream: Stream
  readonly #decoder: FrameDecoder
  readonly #ready: Uint8Array[] = []
  #bytes = 0
  #isResuming = false
  #ended: End | null = null
  #notifyReceiver: (() => void) | null = null
  readonly #isConnected: () => boolean

  /** Frames of at most `max` bytes. The stream is theirs from now on. `isConnected` says whether the connection below it is there. */
  constructor(stream: Stream, max = MAX_FRAME, isConnected: () => boolean = () => false) {
    this.#stream = stream
    this.#isConnected = isConnected
    this.#decoder = new FrameDecoder(max)
    stream.addEventListener('message', this.#onMessage)
    stream.addEventListener('end', this.#onEnd)
    stream.addEventListener('close', this.#onClose)
  }

  /** Whether the connection to the node is there, though the stream may be over. */
  get isConnected(): boolean {
    return this.#isConnected()
  }

  /** The next frame; `null`: the node has said that there are no more. Errors: cut, or not a frame. */
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

  /** The next frame as JSON. Errors: there is none, or it is not JSON. What it holds is the node's word. */
  async receiveJson<T>(): Promise<T> {
    const frame = await this.receive()
    if (!frame) throw new MeshError('lost', 'the node ended the stream before it answered')
    try {
      return JSON.parse(decoder.decode(frame)) as T
    } catch (cause) {
      throw new MeshError('failed', 'the node gave an answer that cannot be read', { cause })
    }
  }

  /** Sends a frame; done when there is room for another. Errors: the stream is gone. */
  async send(...pieces: Uint8Array[]): Promise<void> {
    try {
      if (this.#stream.send(encodeFrame(...pieces))) return
      // When there is room on the connection every stream hears of it, those as well whose own window is still closed.
      do await this.#drained()
      while (this.#stream.writableNeedsDrain)
    } catch (cause) {
      throw this.#ended?.error ?? lost(cause)
    }
  }

  /** Sends a value as JSON. */
  async sendJson(value: unknown): Promise<void> {
    await this.send(encoder.encode(JSON.stringify(value)))
  }

  /** Says that nothing more is sent. */
  finish(): void {
    this.#stream.close().catch(() => this.#stream.abort(new Error('the stream did not take its end')))
  }

  /** Ends both directions at once; whoever waits gets `error`. */
  abort(error: MeshError): void {
    this.#finishWith(error)
    this.#stream.abort(error)
  }

  /** The stream itself, with what was received and not asked for still in it. */
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

  /** Rests while there is enough. */
  #pauseIfFull(): void {
    if (!this.#isResuming && this.#bytes >= PAUSE_ABOVE && this.#stream.readStatus === 'readable') this.#stream.pause()
  }

  /**
   * Goes on. The stream hands out what it has kept meanwhile, and only then tells the node to send more: a rest that began
   * in between would be forgotten, and what comes then would be too much for the stream to keep.
   */
  #resume(): void {
    this.#isResuming = true
    try {
      this.#stream.resume()
    } catch (cause) {
      // There is no connection to tell the node on. What was kept is here all the same.
      this.#finishWith(lost(cause))
    }
    this.#isResuming = false
    this.#pauseIfFull()
  }

  readonly #onEnd = (): void => {
    // Of a stream that is broken, what broke it is told next.
    if (this.#stream.status === 'reset' || this.#stream.status === 'aborted') return
    this.#finishWith(this.#decoder.isPartial ? lost() : null)
  }

  readonly #onClose = (event: Event & { error?: Error }): void => {
    if (event.error) this.#finishWith(lost(event.error))
    // What has come before may still be waiting in the stream: its end follows.
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
