/** In each page of an app, before anything of its own: what the service worker cannot do, and a line kept for it. */
import { leadDownloads } from './download'
import { Line } from './line'
import type { PageAsk, WorkerTold } from './protocol'
import { isRecord } from './protocol'
import { TunnelSocket } from './socket'
import { followAborts } from './unwanted'

const workers = navigator.serviceWorker
let line: Line | null = null

function tell(ask: PageAsk, transfer: Transferable[] = []): void {
  workers.controller?.postMessage(ask, transfer)
}

workers.addEventListener('message', (event: MessageEvent<unknown>) => {
  if (!isRecord(event.data) || !('worker' in event.data)) return
  // Not for the app, which may listen as well.
  event.stopImmediatePropagation()
  const told = event.data as unknown as WorkerTold
  switch (told.worker) {
    case 'line': {
      const [port] = event.ports
      if (!port) return
      line?.close()
      line = new Line(port, told.app)
      return
    }
    case 'want-line':
      if (!line || line.closed) return
      return tell({ page: 'line', app: line.app, fresh: false }, [line.fork()])
    case 'hold':
      return tell({ page: 'held' })
  }
})
workers.startMessages()
tell({ page: 'want-line' })
addEventListener('pagehide', (event) => {
  if (!event.persisted) line?.close()
})
addEventListener('pageshow', (event) => {
  if (event.persisted) tell({ page: 'want-line' })
})

// The service worker sees what scripts set for all paths, but not what they set for some.
const native = Object.getOwnPropertyDescriptor(Document.prototype, 'cookie')
if (native) {
  Object.defineProperty(Document.prototype, 'cookie', {
    ...native,
    set(this: Document, line: string) {
      native.set?.call(this, line)
      tell({ page: 'cookie', url: location.href, line: String(line) })
    },
  })
}

leadDownloads()
followAborts((mark) => tell({ page: 'unwanted', mark }))

const refused = 'Seen through a Virtual Cluster console, an app has no service worker of its own: that place is taken.'
workers.register = () => {
  console.warn(refused)
  return Promise.reject(new DOMException(refused, 'SecurityError'))
}

// Apps that once had a service worker say this in all their pages, and would be without a way to their instance.
ServiceWorkerRegistration.prototype.unregister = () => Promise.resolve(false)

const Native = window.WebSocket
/** Those to the app's own host; others are the browser's. */
window.WebSocket = new Proxy(Native, {
  construct(native, [given, protocols]: [string | URL, (string | string[])?], target) {
    const url = URL.parse(String(given), document.baseURI)
    if (url?.host !== location.host) return Reflect.construct(native, [given, ...(protocols ? [protocols] : [])], target) as WebSocket
    return new TunnelSocket(url, protocols ?? [], (ask, port) => tell(ask, [port]))
  },
})
Object.setPrototypeOf(TunnelSocket.prototype, Native.prototype)
