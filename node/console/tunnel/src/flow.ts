/**
 * Two streams of bytes over a MessagePort, one each way, each with back-pressure: who reads grants how much may be sent.
 *
 * Streams could be transferred as they are, but not in every browser, and those that can copy each chunk and wait for a
 * word on it before the next.
 */
import { isRecord } from './protocol.js'

/** Bytes that may be under way in one direction. */
export const WINDOW = 1024 * 1024
/** A larger chunk goes in pieces. */
const MAX_CHUNK = 256 * 1024
/** Less is granted together with the next. */
const MIN_GRANT = WINDOW / 4

type Message =
  | { flow: 'chunk'; bytes: Uint8Array<ArrayBuffer> }
  | { flow: 'end' }
  | { flow: 'broken'; message: string }
  | { flow: 'grant'; bytes: number }
  | { flow: 'enough' }

export class Flow {
  /** What the other side sends. Cancelling it tells the other side; it errors when that broke off or is gone. */
  readonly incoming: ReadableStream<Uint8Array<ArrayBuffer>>
  readonly #port: MessagePort
  #controller: ReadableStreamDefaultController<Uint8Array<ArrayBuffer>> | null = null
  /** Granted to the other side and not used. */
  #granted = 0
  /** Granted by the other side and not used. */
  #credit = 0
  #onCredit: (() => void) | null = null
  #reader: ReadableStreamDefaultReader<Uint8Array> | null = null
  /** Until `send` is done. */
  #outgoing = true
  /** The other side wants nothing, or nothing more. */
  #unwanted = false
  #closed = false
  readonly #onEnd: () => void

  /**
   * `onOther` gets messages that are none of a flow's; `onEnd` is called once, when both directions are over: `send` or
   * `abort` has to be called for that. Only with `ahead` may the other side send before somebody reads.
   */
  constructor(port: MessagePort, onOther: (message: unknown) => void, onEnd: () => void = () => {}, ahead = true) {
    this.#port = port
    this.#onEnd = onEnd
    const highWaterMark = ahead ? WINDOW : 0
    this.incoming = new ReadableStream(
      {
        start: (controller) => {
          this.#controller = controller
        },
        pull: () => this.#grant(WINDOW - highWaterMark),
        cancel: () => {
          this.#controller = null
          this.#post({ flow: 'enough' })
          this.#settle(false)
        },
      },
      { highWaterMark, size: (chunk) => chunk.byteLength },
    )
    port.addEventListener('message', (event: MessageEvent<unknown>) => {
      if (isRecord(event.data) && 'flow' in event.data) this.#receive(event.data as Message)
      else onOther(event.data)
    })
    // Not in every browser; elsewhere the line's pings find out.
    port.addEventListener('close', () => this.abort('the other side is gone'))
    port.start()
  }

  /** Sends a stream, and its end. Done when it is sent, or not wanted any more. */
  async send(stream: ReadableStream<Uint8Array> | null): Promise<void> {
    const reader = stream?.getReader()
    this.#reader = reader ?? null
    if (this.#unwanted || this.#closed) this.#stopSending()
    try {
      while (reader && !this.#closed) {
        const { done, value } = await reader.read()
        if (done || this.#reader === null) break
        await this.#sendChunk(value)
      }
      this.#post({ flow: 'end' })
    } catch (error) {
      this.#post({ flow: 'broken', message: error instanceof Error ? error.message : String(error) })
    } finally {
      this.#outgoing = false
      this.#reader = null
      this.#settle(false)
    }
  }

  /** Breaks off both directions. */
  abort(message: string): void {
    if (this.#closed) return
    this.#controller?.error(new TypeError(message))
    this.#controller = null
    this.#post({ flow: 'broken', message })
    this.#post({ flow: 'enough' })
    this.#stopSending()
    this.#outgoing = false
    this.#settle(true)
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
      // Of its own, for it is given away.
      const bytes = new Uint8Array(chunk.subarray(from, to))
      this.#credit -= bytes.byteLength
      this.#post({ flow: 'chunk', bytes }, [bytes.buffer])
      from = to
    }
  }

  #receive(message: Message): void {
    switch (message.flow) {
      case 'chunk':
        if (!(message.bytes instanceof Uint8Array) || message.bytes.byteLength > this.#granted) {
          return this.abort('more than was granted')
        }
        if (message.bytes.byteLength === 0) return
        this.#granted -= message.bytes.byteLength
        return this.#controller?.enqueue(message.bytes)
      case 'end':
        this.#controller?.close()
        this.#controller = null
        return this.#settle(true)
      case 'broken':
        this.#controller?.error(new TypeError(String(message.message)))
        this.#controller = null
        return this.#settle(true)
      case 'grant':
        if (Number.isSafeInteger(message.bytes) && message.bytes > 0) this.#credit += message.bytes
        this.#onCredit?.()
        this.#onCredit = null
        return
      case 'enough':
        // Who has not begun to send need not begin.
        this.#outgoing &&= this.#reader !== null
        this.#unwanted = true
        this.#stopSending()
        return this.#settle(true)
    }
  }

  #grant(beyond: number): void {
    const bytes = (this.#controller?.desiredSize ?? -WINDOW) + beyond - this.#granted
    if (bytes < MIN_GRANT) return
    this.#granted += bytes
    this.#post({ flow: 'grant', bytes })
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
   * When nothing can come or go any more, it is over. Who heard the last word closes the port: it would else be closed
   * before that word arrived.
   */
  #settle(heard: boolean): void {
    if (this.#outgoing || this.#controller !== null) return
    if (heard) this.#port.close()
    if (this.#closed) return
    this.#closed = true
    this.#onEnd()
  }
}
