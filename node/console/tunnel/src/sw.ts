/// <reference lib="webworker" />
/** Runs as the service worker of an app's origin: answers the requests of its pages through the mesh. */
import { Cookies } from './cookies'
import type { BrowserCookieStore } from './cookies'
import { cookieContext, requestHeaders } from './headers'
import type { PageMessage, SocketEvent, WorkerMessage } from './protocol'
import { isRecord } from './protocol'
import { RpcError } from './rpc-channel'
import { basicAuthorization, decline } from './worker/basic-auth'
import { cancelRequest, withCancellation } from './worker/cancellation'
import { addChannel, findChannel, pages, shareChannel } from './worker/channels'
import { asAttachment, parseDownload } from './worker/download'
import { isEventSource } from './worker/event-source'
import { SignInRequired, UnsupportedResponse, forward } from './worker/forward'
import { jarStore } from './worker/jar-store'
import type { Problem } from './worker/pages'
import { builtInFile, signInPage, unavailable } from './worker/pages'

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
  // As in `http://user:password@host/`.
  if (url.username !== '') return event.respondWith(signedIn(event, url))
  const file = builtInFile(url.pathname)
  if (file) return event.respondWith(file)
  const download = parseDownload(url)
  if (download) event.respondWith(respond(event, download.url).then((response) => asAttachment(response, download.name)))
  else if (!url.pathname.startsWith('/__vc/')) event.respondWith(respond(event, url))
})

/** Keeps the credentials in a URL and redirects to the URL without them. */
async function signedIn({ request }: FetchEvent, url: URL): Promise<Response> {
  const channel = await findChannel()
  if (!channel) return failed(request, consoleClosed(false))
  channel.setCredentials(basicAuthorization(decodeURIComponent(url.username), decodeURIComponent(url.password)))
  return Response.redirect(`${url.origin}${url.pathname}${url.search}`, 307)
}

async function respond(event: FetchEvent, url: URL): Promise<Response> {
  try {
    return await withCancellation(event, async (signal) => {
      const channel = await findChannel()
      if (!channel) return failed(event.request, consoleClosed(false))
      return keptAlive(event, await forward(event.request, url, channel, await cookies, signal))
    })
  } catch (error) {
    if (error instanceof SignInRequired) return signInPage(error.realm, error.wasRejected)
    return failed(event.request, problem(error))
  }
}

function failed(request: Request, problem: Problem): Response {
  return isEventSource(request) ? Response.error() : unavailable(request, problem)
}

function problem(error: unknown): Problem {
  const code = error instanceof RpcError ? error.code : 'failed'
  const text = sentence(error instanceof Error ? error.message : String(error))
  if (error instanceof UnsupportedResponse) {
    return { status: 502, title: 'The answer of the service cannot be shown', text, mayHaveArrived: true }
  }
  switch (code) {
    case 'gone':
      return consoleClosed(true)
    case 'refused':
    case 'failed':
      return { status: 502, title: 'The service does not answer', text, mayHaveArrived: code === 'failed' }
    case 'unreachable':
    case 'lost':
      return { status: 503, title: 'The cluster is out of reach', text, mayHaveArrived: code === 'lost' }
  }
}

function consoleClosed(mayHaveArrived: boolean): Problem {
  const text = 'This page needs an open tab with the console. Open the service there.'
  return { status: 503, title: 'The console is not open', text, mayHaveArrived }
}

/** Returns an error message as a sentence, unless it begins with a name: `shop/web`. */
function sentence(message: string): string {
  const text = /^\S*[./]\S/.test(message) ? message : message.charAt(0).toUpperCase() + message.slice(1)
  return /[.!?]$/.test(text) ? text : `${text}.`
}

/** Keeps the worker alive until the body of a response is complete. The body of server-sent events ends if it is cut off. */
function keptAlive(event: FetchEvent, response: Response): Response {
  if (response.body === null) return response
  const { readable, writable } = new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>()
  const endsOnError = isEventSource(event.request)
  const complete = response.body
    .pipeTo(writable, { preventAbort: endsOnError })
    .catch(() => (endsOnError ? writable.close() : undefined))
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
    case 'sign-in': {
      const channel = await findChannel()
      channel?.setCredentials(basicAuthorization(message.user, message.password))
      return page?.postMessage({ worker: 'ready', ready: true } satisfies WorkerMessage)
    }
    case 'decline':
      decline(message.url)
      return page?.postMessage({ worker: 'ready', ready: true } satisfies WorkerMessage)
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
