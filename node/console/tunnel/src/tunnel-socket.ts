/** Implements the `WebSocket` interface over a MessagePort to the console. */
import type { PageMessage, SocketCommand, SocketEvent } from './protocol'

/** Subprotocol names (RFC 9110, section 5.6.2). */
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/
/** Maximum length of a close reason, in bytes (RFC 6455, section 5.5). */
const MAX_REASON = 123
/** Maximum number of bytes in flight to the console, which closes a WebSocket that buffers too much; more are buffered here. */
const MAX_IN_FLIGHT = 4 * 1024 * 1024

type Handler<E extends Event> = ((event: E) => void) | null

/** A WebSocket to the app's own host. */
export class TunnelSocket extends EventTarget {
  readonly CONNECTING = 0
  readonly OPEN = 1
  readonly CLOSING = 2
  readonly CLOSED = 3
  readonly #url: string
  readonly #port: MessagePort
  #state = 0
  #protocol = ''
  #buffered = 0
  /** Number of bytes posted to the console that have not left it. */
  #inFlight = 0
  #onCapacity: () => void = () => {}
  #binaryType: BinaryType = 'blob'
  /** Serializes messages: a Blob is read asynchronously. */
  #sendQueue = Promise.resolve()
  readonly #handlers = new Map<string, EventListener>()
  readonly #onHide = ({ persisted }: PageTransitionEvent): void => {
    if (!persisted) this.#post({ close: true, code: 1001 })
  }

  constructor(url: URL, protocols: string | string[], open: (ask: PageMessage, port: MessagePort) => void) {
    super()
    const offered = typeof protocols === 'string' ? [protocols] : [...protocols]
    if (!offered.every((it) => TOKEN.test(it)) || new Set(offered).size < offered.length) {
      throw new DOMException('Subprotocols must be distinct tokens.', 'SyntaxError')
    }
    const secure = url.protocol === 'https:' || url.protocol === 'wss:'
    this.#url = `${secure ? 'wss' : 'ws'}://${url.host}${url.pathname}${url.search}`
    const { port1, port2 } = new MessageChannel()
    this.#port = port1
    port1.onmessage = (event: MessageEvent<SocketEvent>) => this.#receive(event.data)
    port1.addEventListener('close', () => this.#closed(1006, '', false))
    addEventListener('pagehide', this.#onHide)
    open({ page: 'socket', target: url.pathname + url.search, protocols: offered }, port2)
  }

  get url(): string {
    return this.#url
  }
  get readyState(): number {
    return this.#state
  }
  get protocol(): string {
    return this.#protocol
  }
  get extensions(): string {
    return ''
  }
  get bufferedAmount(): number {
    return this.#buffered
  }
  get binaryType(): BinaryType {
    return this.#binaryType
  }
  set binaryType(type: BinaryType) {
    if (type === 'blob' || type === 'arraybuffer') this.#binaryType = type
  }
  get onopen(): Handler<Event> {
    return this.#handler('open')
  }
  set onopen(handler: Handler<Event>) {
    this.#handle('open', handler)
  }
  get onmessage(): Handler<MessageEvent> {
    return this.#handler('message')
  }
  set onmessage(handler: Handler<MessageEvent>) {
    this.#handle('message', handler)
  }
  get onerror(): Handler<Event> {
    return this.#handler('error')
  }
  set onerror(handler: Handler<Event>) {
    this.#handle('error', handler)
  }
  get onclose(): Handler<CloseEvent> {
    return this.#handler('close')
  }
  set onclose(handler: Handler<CloseEvent>) {
    this.#handle('close', handler)
  }

  send(data: string | ArrayBuffer | ArrayBufferView | Blob): void {
    if (this.#state === 0) throw new DOMException('Still connecting.', 'InvalidStateError')
    const content = copied(data)
    this.#buffered += size(content)
    if (this.#state !== 1) return
    const post = async (): Promise<void> => {
      const send = content instanceof Blob ? await content.arrayBuffer() : content
      while (this.#inFlight >= MAX_IN_FLIGHT && this.#state < 3) await new Promise<void>((resolve) => (this.#onCapacity = resolve))
      this.#inFlight += size(send)
      this.#post({ send }, typeof send === 'string' ? [] : [send])
    }
    // A message that cannot be read must not be skipped silently, so the socket fails.
    this.#sendQueue = this.#sendQueue.then(post).catch(() => {
      this.#post({ close: true })
      this.#closed(1006, '', false)
    })
  }

  close(code?: number, reason = ''): void {
    if (code !== undefined && code !== 1000 && !(code >= 3000 && code <= 4999)) {
      throw new DOMException('The close code must be 1000 or in 3000 to 4999.', 'InvalidAccessError')
    }
    if (new TextEncoder().encode(reason).length > MAX_REASON) {
      throw new DOMException(`The close reason must be at most ${MAX_REASON} bytes.`, 'SyntaxError')
    }
    if (this.#state >= 2) return
    this.#state = 2
    void this.#sendQueue.then(() => this.#post({ close: true, ...(code === undefined ? {} : { code, reason }) }))
  }

  #post(command: SocketCommand, transfer: Transferable[] = []): void {
    if (this.#state < 3) this.#port.postMessage(command, transfer)
  }

  #receive(event: SocketEvent): void {
    switch (event.socket) {
      case 'open':
        if (this.#state !== 0) return
        this.#state = 1
        this.#protocol = event.protocol
        return void this.dispatchEvent(new Event('open'))
      case 'message': {
        if (this.#state !== 1) return
        const data = typeof event.data === 'string' || this.#binaryType === 'arraybuffer' ? event.data : new Blob([event.data])
        return void this.dispatchEvent(new MessageEvent('message', { data, origin: new URL(this.#url).origin }))
      }
      case 'sent':
        this.#buffered = Math.max(0, this.#buffered - event.bytes)
        this.#inFlight -= event.bytes
        return this.#onCapacity()
      case 'closed':
        return this.#closed(event.code, event.reason, event.clean)
    }
  }

  #closed(code: number, reason: string, wasClean: boolean): void {
    if (this.#state === 3) return
    this.#state = 3
    this.#port.close()
    this.#onCapacity()
    removeEventListener('pagehide', this.#onHide)
    if (!wasClean) this.dispatchEvent(new Event('error'))
    this.dispatchEvent(new CloseEvent('close', { code, reason, wasClean }))
  }

  #handler<E extends Event>(type: string): Handler<E> {
    return (this.#handlers.get(type) as Handler<E> | undefined) ?? null
  }

  #handle<E extends Event>(type: string, handler: Handler<E>): void {
    const before = this.#handlers.get(type)
    if (before) this.removeEventListener(type, before)
    this.#handlers.delete(type)
    if (typeof handler !== 'function') return
    this.#handlers.set(type, handler as EventListener)
    this.addEventListener(type, handler as EventListener)
  }
}

function copied(data: string | ArrayBuffer | ArrayBufferView | Blob): string | ArrayBuffer | Blob {
  if (data instanceof ArrayBuffer) return data.slice(0)
  if (ArrayBuffer.isView(data)) {
    return new Uint8Array(new Uint8Array(data.buffer, data.byteOffset, data.byteLength)).buffer
  }
  return data instanceof Blob ? data : String(data)
}

/** Returns the size of a message as the console counts it: UTF-16 code units or bytes. */
function size(content: string | ArrayBuffer | Blob): number {
  if (typeof content === 'string') return content.length
  return content instanceof Blob ? content.size : content.byteLength
}
