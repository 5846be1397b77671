/**
 * Runs in each page of an app before the page's own scripts: does what a service worker cannot, and keeps a channel to the
 * console that outlives the service worker.
 */
import { reportAborts } from './abort-reports'
import { interceptDownloads } from './download'
import type { PageMessage, WorkerMessage } from './protocol'
import { isRecord } from './protocol'
import { RpcChannel } from './rpc-channel'
import { TunnelSocket } from './tunnel-socket'

const workers = navigator.serviceWorker
const { get: controller } = Object.getOwnPropertyDescriptor(ServiceWorkerContainer.prototype, 'controller') ?? {}
let channel: RpcChannel | null = null

function post(message: PageMessage, transfer: Transferable[] = []): void {
  const worker = controller?.call(workers) as ServiceWorker | null
  worker?.postMessage(message, transfer)
}

workers.addEventListener('message', (event: MessageEvent<unknown>) => {
  if (!isRecord(event.data) || !('worker' in event.data)) return
  // The app may listen for messages as well.
  event.stopImmediatePropagation()
  const message = event.data as unknown as WorkerMessage
  switch (message.worker) {
    case 'channel': {
      const [port] = event.ports
      if (!port) return
      channel?.close()
      channel = new RpcChannel(port, message.app)
      return
    }
    case 'need-channel':
      if (!channel || channel.closed) return
      return post({ page: 'channel', app: channel.app, fresh: false }, [channel.fork()])
    case 'keepalive':
      return post({ page: 'keepalive-ack' })
  }
})
workers.startMessages()
post({ page: 'need-channel' })
addEventListener('pagehide', (event) => {
  if (!event.persisted) channel?.close()
})
addEventListener('pageshow', (event) => {
  if (event.persisted) post({ page: 'need-channel' })
})

// The service worker sees the cookies that scripts set with the path `/` only.
const native = Object.getOwnPropertyDescriptor(Document.prototype, 'cookie')
if (native) {
  Object.defineProperty(Document.prototype, 'cookie', {
    ...native,
    set(this: Document, cookie: string) {
      native.set?.call(this, cookie)
      post({ page: 'cookie', url: location.href, cookie: String(cookie) })
    },
  })
}

interceptDownloads()
reportAborts((mark) => post({ page: 'abort', mark }))

const refused = 'An app opened from a Virtual Cluster console cannot register a service worker: the tunnel uses its place.'
// The app does not see the tunnel's service worker: it would wait for it, send it messages, or unregister it.
Object.defineProperties(workers, {
  controller: { get: () => null },
  // As without a service worker: it never resolves.
  ready: { value: new Promise(() => {}) },
  getRegistration: { value: async () => undefined },
  getRegistrations: { value: async () => [] },
  register: {
    value: async () => {
      console.warn(refused)
      throw new DOMException(refused, 'SecurityError')
    },
  },
})
workers.addEventListener('controllerchange', (event) => event.stopImmediatePropagation())

const Native = window.WebSocket
/** Tunnels the WebSockets to the app's own host; the others are the browser's. */
window.WebSocket = new Proxy(Native, {
  construct(native, [given, protocols]: [string | URL, (string | string[])?], target) {
    const url = URL.parse(String(given), document.baseURI)
    if (url?.host !== location.host) return Reflect.construct(native, [given, ...(protocols ? [protocols] : [])], target) as WebSocket
    return new TunnelSocket(url, protocols ?? [], (message, port) => post(message, [port]))
  },
})
Object.setPrototypeOf(TunnelSocket.prototype, Native.prototype)
