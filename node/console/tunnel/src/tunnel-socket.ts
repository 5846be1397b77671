/** A WebSocket over a MessagePort, as scripts know it. */
import type { PageMessage, SocketCommand, SocketEvent } from './protocol'

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/
const MAX_REASON = 123
/** Bytes that may be on their way through the console, which ends a WebSocket with too many; what is more waits here. */
const AHEAD = 4 * 1024 * 1024

type Handler<E extends Event> = ((event: E) => void) | null

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
  /** Bytes on their way through the console. */
  #ahead = 0
  #onRoom: () => void = () => {}
  #binaryType: BinaryType = 'blob'
  /** Messages go one after another, though a Blob has to be read first. */
  #sending = Promise.resolve()
  readonly #handlers = new Map<string, EventListener>()
  readonly #onHide = ({ persisted }: PageTransitionEvent): void => {
    if (!persisted) this.#tell({ close: true, code: 1001 })
  }

  constructor(url: URL, protocols: string | string[], open: (ask: PageMessage, port: MessagePort) => void) {
    super()
    const offered = typeof protocols === 'string' ? [protocols] : [...protocols]
    if (!offered.every((it) => TOKEN.test(it)) || new Set(offered).size < offered.length) {
      throw new DOMException('The subprotocols are not different tokens.', 'SyntaxError')
    }
    const secure = url.protocol === 'https:' || url.protocol === 'wss:'
    this.#url = `${secure ? 'wss' : 'ws'}://${url.host}${url.pathname}${url.search}`
    const { port1, port2 } = new MessageChannel()
    this.#port = port1
    port1.onmessage = (event: MessageEvent<SocketEvent>) => this.#receive(event.data)
    port1.addEventListener('close', () => this.#over(1006, '', false))
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
    const tell = async (): Promise<void> => {
      const send = content instanceof Blob ? await content.arrayBuffer() : content
      while (this.#ahead >= AHEAD && this.#state < 3) await new Promise<void>((resolve) => (this.#onRoom = resolve))
      this.#ahead += size(send)
      this.#tell({ send }, typeof send === 'string' ? [] : [send])
    }
    // What comes after a file that cannot be read would not be what was sent.
    this.#sending = this.#sending.then(tell).catch(() => {
      this.#tell({ close: true })
      this.#over(1006, '', false)
    })
  }

  close(code?: number, reason = ''): void {
    if (code !== undefined && code !== 1000 && !(code >= 3000 && code <= 4999)) {
      throw new DOMException('A close code is 1000, or from 3000 to 4999.', 'InvalidAccessError')
    }
    if (new TextEncoder().encode(reason).length > MAX_REASON) {
      throw new DOMException(`A reason has at most ${MAX_REASON} bytes.`, 'SyntaxError')
    }
    if (this.#state >= 2) return
    this.#state = 2
    void this.#sending.then(() => this.#tell({ close: true, ...(code === undefined ? {} : { code, reason }) }))
  }

  #tell(ask: SocketCommand, transfer: Transferable[] = []): void {
    if (this.#state < 3) this.#port.postMessage(ask, transfer)
  }

  #receive(told: SocketEvent): void {
    switch (told.socket) {
      case 'open':
        if (this.#state !== 0) return
        this.#state = 1
        this.#protocol = told.protocol
        return void this.dispatchEvent(new Event('open'))
      case 'message': {
        if (this.#state !== 1) return
        const data = typeof told.data === 'string' || this.#binaryType === 'arraybuffer' ? told.data : new Blob([told.data])
        return void this.dispatchEvent(new MessageEvent('message', { data, origin: new URL(this.#url).origin }))
      }
      case 'sent':
        this.#buffered = Math.max(0, this.#buffered - told.bytes)
        this.#ahead -= told.bytes
        return this.#onRoom()
      case 'closed':
        return this.#over(told.code, told.reason, told.clean)
    }
  }

  #over(code: number, reason: string, wasClean: boolean): void {
    if (this.#state === 3) return
    this.#state = 3
    this.#port.close()
    this.#onRoom()
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

/** As the console counts it. */
function size(content: string | ArrayBuffer | Blob): number {
  if (typeof content === 'string') return content.length
  return content instanceof Blob ? content.size : content.byteLength
}
