/// <reference lib="webworker" />
/** Runs as the service worker of an app's origin: answers the requests of its pages through the mesh. */
import { Cookies } from './cookies'
import type { BrowserCookieStore } from './cookies'
import { cookieContext, requestHeaders } from './headers'
import type { PageMessage, SocketEvent, WorkerMessage } from './protocol'
import { isRecord } from './protocol'
import { RpcError } from './rpc-channel'
import { cancelRequest, withCancellation } from './worker/cancellation'
import { addChannel, findChannel, pages, shareChannel } from './worker/channels'
import { asAttachment, parseDownload } from './worker/download'
import { UnsupportedResponse, forward } from './worker/forward'
import { jarStore } from './worker/jar-store'
import { builtInFile, unavailable } from './worker/pages'

declare const self: ServiceWorkerGlobalScope & { cookieStore?: BrowserCookieStore }

/**
 * Interval at which pages are asked for a message while responses are in flight, in milliseconds: browsers stop a service
 * worker without events.
 */
const KEEPALIVE_INTERVAL = 20_000
/** Maximum time that one event extends the worker's life, in milliseconds: browsers stop a worker whose event takes minutes. */
const MAX_EXTENSION = 60_000

const cookies = Cookies.open(jarStore, self.cookieStore ?? null)
const inFlight = new Set<Promise<unknown>>()
let keepaliveTimer: ReturnType<typeof setInterval> | null = null

self.addEventListener('install', () => void self.skipWaiting())
self.addEventListener('activate', (event) => event.waitUntil(self.clients.claim()))

self.addEventListener('fetch', (event) => {
  const url = new URL(event.request.url)
  // Requests to other hosts do not go through the cluster.
  if (url.origin !== self.location.origin) return
  const file = builtInFile(url.pathname)
  if (file) return event.respondWith(file)
  const download = parseDownload(url)
  if (download) event.respondWith(respond(event, download.url).then((response) => asAttachment(response, download.name)))
  else if (!url.pathname.startsWith('/__vc/')) event.respondWith(respond(event, url))
})

async function respond(event: FetchEvent, url: URL): Promise<Response> {
  try {
    return await withCancellation(event, async (signal) => {
      const channel = await findChannel()
      if (!channel) return consoleClosed(event.request)
      return keptAlive(event, await forward(event.request, url, channel, await cookies, signal))
    })
  } catch (error) {
    const code = error instanceof RpcError ? error.code : 'failed'
    if (code === 'gone') return consoleClosed(event.request)
    const message = error instanceof Error ? error.message : String(error)
    if (error instanceof UnsupportedResponse) return unavailable(event.request, 502, 'The answer of the service cannot be shown', message)
    if (code === 'failed' || code === 'refused') return unavailable(event.request, 502, 'The service does not answer', message)
    return unavailable(event.request, 503, 'The cluster is out of reach', `${message}. This page reloads when it is back.`)
  }
}

function consoleClosed(request: Request): Response {
  const text = 'This page needs an open tab with the console. Open the service there; this page then reloads by itself.'
  return unavailable(request, 503, 'The console is not open', text)
}

/** Keeps the worker alive until the body of a response is complete. */
function keptAlive(event: FetchEvent, response: Response): Response {
  if (response.body === null) return response
  const { readable, writable } = new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>()
  const complete = response.body
    .pipeTo(writable)
    .catch(() => {})
    .finally(() => {
      inFlight.delete(complete)
      if (inFlight.size > 0 || keepaliveTimer === null) return
      clearInterval(keepaliveTimer)
      keepaliveTimer = null
    })
  inFlight.add(complete)
  event.waitUntil(extendLife())
  keepaliveTimer ??= setInterval(() => void pingPages(), KEEPALIVE_INTERVAL)
  const { status, headers } = response
  return new Response(readable, { status, headers })
}

/** Resolves when every response is complete, after `MAX_EXTENSION` at the latest. */
async function extendLife(): Promise<void> {
  await Promise.race([Promise.all(inFlight), new Promise((resolve) => setTimeout(resolve, MAX_EXTENSION))])
}

async function pingPages(): Promise<void> {
  for (const page of await pages()) page.postMessage({ worker: 'keepalive' } satisfies WorkerMessage)
}

self.addEventListener('message', (event) => {
  const message: unknown = event.data
  if (isRecord(message) && 'page' in message) event.waitUntil(receive(event, message as unknown as PageMessage))
})

async function receive(event: ExtendableMessageEvent, message: PageMessage): Promise<void> {
  const page = event.source as Client | null
  const [port] = event.ports
  switch (message.page) {
    case 'channel':
      if (port) await addChannel(port, message.app, message.fresh)
      return page?.postMessage({ worker: 'ready', ready: true } satisfies WorkerMessage)
    case 'need-channel': {
      const channel = await findChannel()
      if (channel && page) shareChannel(page, channel)
      return
    }
    case 'ready': {
      const channel = await findChannel()
      const ready = (await channel?.reachesCluster()) ?? false
      return page?.postMessage({ worker: 'ready', ready } satisfies WorkerMessage)
    }
    case 'socket':
      return port && openSocket(message, port)
    case 'abort':
      if (page) cancelRequest(page.id, message.mark)
      return
    case 'cookie':
      return (await cookies).setFromScript(message.url, message.cookie)
    case 'keepalive-ack':
      return extendLife()
  }
}

/** Opens a WebSocket for a page with the cookies that the page cannot see. The page then uses the port without the worker. */
async function openSocket(message: PageMessage & { page: 'socket' }, port: MessagePort): Promise<void> {
  const channel = await findChannel()
  if (!channel) return port.postMessage({ socket: 'closed', code: 1006, reason: '', clean: false } satisfies SocketEvent)
  const url = new URL(message.target, self.location.origin)
  const request = new Request(url)
  const cookie = await (await cookies).header(url.href, cookieContext(request, 'same-origin') ?? 'strict')
  const headers = requestHeaders(request, url, 'same-origin', cookie).filter(([name]) => !/^(accept-encoding|sec-fetch-.*)$/.test(name))
  channel.socket(url.pathname + url.search, [...headers, ['origin', self.location.origin]], message.protocols, port)
}
