/**
 * Carries two byte streams over a MessagePort, one in each direction, with credit-based flow control (backpressure): the
 * receiver grants the number of bytes that the sender may send.
 *
 * Transferable streams are not available in every browser, and where they are, they copy each chunk and wait for an
 * acknowledgement before the next.
 */
import { isRecord } from './protocol'

/** Maximum number of bytes in flight per direction. */
export const WINDOW = 1024 * 1024
/** Maximum size of a chunk message, in bytes; larger chunks are split. */
const MAX_CHUNK = 256 * 1024
/** Minimum credit per message, in bytes; less is granted together with the next. */
const MIN_GRANT = WINDOW / 4

type Message =
  | { stream: 'chunk'; bytes: Uint8Array<ArrayBuffer> }
  | { stream: 'end' }
  | { stream: 'error'; message: string }
  | { stream: 'credit'; bytes: number }
  | { stream: 'cancel' }

/** One end of a pair of flow-controlled byte streams. */
export class CreditStream {
  /** Yields the bytes from the peer. Cancelling it cancels the peer's `send`; it errors if the peer aborts or disappears. */
  readonly incoming: ReadableStream<Uint8Array<ArrayBuffer>>
  readonly #port: MessagePort
  #controller: ReadableStreamDefaultController<Uint8Array<ArrayBuffer>> | null = null
  /** Credit granted to the peer and not used yet, in bytes. */
  #granted = 0
  /** Credit granted by the peer and not used yet, in bytes. */
  #credit = 0
  #onCredit: (() => void) | null = null
  #reader: ReadableStreamDefaultReader<Uint8Array> | null = null
  /** Whether the outgoing direction is open: `send` has not completed. */
  #outgoing = true
  /** Whether the peer cancelled the outgoing direction. */
  #cancelled = false
  #closed = false
  readonly #onEnd: () => void

  /**
   * Takes over a port.
   *
   * @param onOther receives the messages on the port that do not belong to the streams
   * @param onEnd called once, when both directions have ended; requires a call of `send` or `abort`
   * @param prefetch whether the peer may send before `incoming` is read
   */
  constructor(port: MessagePort, onOther: (message: unknown) => void, onEnd: () => void = () => {}, prefetch = true) {
    this.#port = port
    this.#onEnd = onEnd
    const highWaterMark = prefetch ? WINDOW : 0
    this.incoming = new ReadableStream(
      {
        start: (controller) => {
          this.#controller = controller
        },
        pull: () => this.#grant(WINDOW - highWaterMark),
        cancel: () => {
          this.#controller = null
          this.#post({ stream: 'cancel' })
          this.#closeIfDone(false)
        },
      },
      { highWaterMark, size: (chunk) => chunk.byteLength },
    )
    port.addEventListener('message', (event: MessageEvent<unknown>) => {
      if (isRecord(event.data) && 'stream' in event.data) this.#receive(event.data as Message)
      else onOther(event.data)
    })
    // Not every browser has this event; elsewhere the channel's pings detect it.
    port.addEventListener('close', () => this.abort('the other end was closed'))
    port.start()
  }

  /** Sends a stream and its end; `null` sends the end alone. Resolves when all is sent or the peer cancelled. */
  async send(stream: ReadableStream<Uint8Array> | null): Promise<void> {
    const reader = stream?.getReader()
    this.#reader = reader ?? null
    if (this.#cancelled || this.#closed) this.#stopSending()
    try {
      while (reader && !this.#closed) {
        const { done, value } = await reader.read()
        if (done || this.#reader === null) break
        await this.#sendChunk(value)
      }
      this.#post({ stream: 'end' })
    } catch (error) {
      this.#post({ stream: 'error', message: error instanceof Error ? error.message : String(error) })
    } finally {
      this.#outgoing = false
      this.#reader = null
      this.#closeIfDone(false)
    }
  }

  /** Ends both directions with an error. */
  abort(message: string): void {
    if (this.#closed) return
    this.#controller?.error(new TypeError(message))
    this.#controller = null
    this.#post({ stream: 'error', message })
    this.#post({ stream: 'cancel' })
    this.#stopSending()
    this.#outgoing = false
    this.#closeIfDone(true)
  }

  async #sendChunk(chunk: Uint8Array): Promise<void> {
    for (let from = 0; from < chunk.byteLength; ) {
      while (this.#credit <= 0 && this.#reader) {
        await new Promise<void>((resolve) => {
          this.#onCredit = resolve
        })
      }
      if (!this.#reader) return
      const to = Math.min(chunk.byteLength, from + Math.min(this.#credit, MAX_CHUNK))
      // Copied, because the buffer is transferred.
      const bytes = new Uint8Array(chunk.subarray(from, to))
      this.#credit -= bytes.byteLength
      this.#post({ stream: 'chunk', bytes }, [bytes.buffer])
      from = to
    }
  }

  #receive(message: Message): void {
    switch (message.stream) {
      case 'chunk':
        if (!(message.bytes instanceof Uint8Array) || message.bytes.byteLength > this.#granted) {
          return this.abort('the other end sent more bytes than its credit')
        }
        if (message.bytes.byteLength === 0) return
        this.#granted -= message.bytes.byteLength
        return this.#controller?.enqueue(message.bytes)
      case 'end':
        this.#controller?.close()
        this.#controller = null
        return this.#closeIfDone(true)
      case 'error':
        this.#controller?.error(new TypeError(String(message.message)))
        this.#controller = null
        return this.#closeIfDone(true)
      case 'credit':
        if (Number.isSafeInteger(message.bytes) && message.bytes > 0) this.#credit += message.bytes
        this.#onCredit?.()
        this.#onCredit = null
        return
      case 'cancel':
        // A send that has not started is complete.
        this.#outgoing &&= this.#reader !== null
        this.#cancelled = true
        this.#stopSending()
        return this.#closeIfDone(true)
    }
  }

  #grant(beyond: number): void {
    const bytes = (this.#controller?.desiredSize ?? -WINDOW) + beyond - this.#granted
    if (bytes < MIN_GRANT) return
    this.#granted += bytes
    this.#post({ stream: 'credit', bytes })
  }

  #stopSending(): void {
    const reader = this.#reader
    this.#reader = null
    this.#onCredit?.()
    this.#onCredit = null
    reader?.cancel().catch(() => {})
  }

  #post(message: Message, transfer: Transferable[] = []): void {
    if (!this.#closed) this.#port.postMessage(message, transfer)
  }

  /**
   * Ends the pair when both directions have ended. Only the end that received the last message closes the port: closed by
   * the sender, it could drop that message.
   */
  #closeIfDone(isReceiver: boolean): void {
    if (this.#outgoing || this.#controller !== null) return
    if (isReceiver) this.#port.close()
    if (this.#closed) return
    this.#closed = true
    this.#onEnd()
  }
}
