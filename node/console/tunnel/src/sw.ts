/// <reference lib="webworker" />
/** The service worker of an app's origin: whatever its pages ask for comes through the mesh. */
import { Cookies } from './cookies'
import type { VisibleCookies } from './cookies'
import { cookieContext, outgoing } from './headers'
import { LineError } from './line'
import type { PageAsk, SocketTold, WorkerTold } from './protocol'
import { isRecord } from './protocol'
import { UnfitAnswer, answer } from './worker/answer'
import { asDownload, attachment } from './worker/download'
import { findLine, giveLine, pages, takeLine } from './worker/lines'
import { ownFile, unavailable } from './worker/pages'
import { shelf } from './worker/shelf'
import { giveUp, whileWanted } from './worker/wanted'

declare const self: ServiceWorkerGlobalScope & { cookieStore?: VisibleCookies }

/**
 * How often pages are asked for a sign of life while an answer is on its way: browsers stop a worker that hears nothing.
 * Each sign keeps it for a while, milliseconds; one event that took minutes would have it stopped for that.
 */
const HOLD_EVERY = 20_000
const HOLD_FOR = 60_000

const cookies = Cookies.open(shelf, self.cookieStore ?? null)
const underWay = new Set<Promise<unknown>>()
let holding: ReturnType<typeof setInterval> | null = null

self.addEventListener('install', () => void self.skipWaiting())
self.addEventListener('activate', (event) => event.waitUntil(self.clients.claim()))

self.addEventListener('fetch', (event) => {
  const url = new URL(event.request.url)
  // Other hosts are the browser's own business.
  if (url.origin !== self.location.origin) return
  const own = ownFile(url.pathname)
  if (own) return event.respondWith(own)
  const download = asDownload(url)
  if (download) event.respondWith(respond(event, download.url).then((answer) => attachment(answer, download.name)))
  else if (!url.pathname.startsWith('/__vc/')) event.respondWith(respond(event, url))
})

async function respond(event: FetchEvent, url: URL): Promise<Response> {
  try {
    return await whileWanted(event, async (signal) => {
      const line = await findLine()
      if (!line) return notOpen(event.request)
      return streamed(event, await answer(event.request, url, line, await cookies, signal))
    })
  } catch (error) {
    const code = error instanceof LineError ? error.code : 'failed'
    if (code === 'gone') return notOpen(event.request)
    const message = error instanceof Error ? error.message : String(error)
    if (error instanceof UnfitAnswer) return unavailable(event.request, 502, 'The answer of the service cannot be shown', message)
    if (code === 'failed' || code === 'refused') return unavailable(event.request, 502, 'The service does not answer', message)
    return unavailable(event.request, 503, 'The cluster is out of reach', `${message}. This page goes on by itself.`)
  }
}

function notOpen(request: Request): Response {
  const text = 'Its way to the cluster is a tab with the console. Open the service there; this page then goes on by itself.'
  return unavailable(request, 503, 'The console is not open', text)
}

/** Keeps the worker alive until an answer is there whole. */
function streamed(event: FetchEvent, response: Response): Response {
  if (response.body === null) return response
  const { readable, writable } = new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>()
  const whole = response.body
    .pipeTo(writable)
    .catch(() => {})
    .finally(() => {
      underWay.delete(whole)
      if (underWay.size > 0 || holding === null) return
      clearInterval(holding)
      holding = null
    })
  underWay.add(whole)
  event.waitUntil(holdOn())
  holding ??= setInterval(() => void askPages(), HOLD_EVERY)
  const { status, headers } = response
  return new Response(readable, { status, headers })
}

/** Done when every answer is there whole, or after a while. */
async function holdOn(): Promise<void> {
  await Promise.race([Promise.all(underWay), new Promise((resolve) => setTimeout(resolve, HOLD_FOR))])
}

async function askPages(): Promise<void> {
  for (const page of await pages()) page.postMessage({ worker: 'hold' } satisfies WorkerTold)
}

self.addEventListener('message', (event) => {
  const ask: unknown = event.data
  if (isRecord(ask) && 'page' in ask) event.waitUntil(attend(event, ask as unknown as PageAsk))
})

async function attend(event: ExtendableMessageEvent, ask: PageAsk): Promise<void> {
  const page = event.source as Client | null
  const [port] = event.ports
  switch (ask.page) {
    case 'line':
      if (port) await takeLine(port, ask.app, ask.fresh)
      return page?.postMessage({ worker: 'ready', ready: true } satisfies WorkerTold)
    case 'want-line': {
      const line = await findLine()
      if (line && page) giveLine(page, line)
      return
    }
    case 'ready': {
      const line = await findLine()
      const ready = (await line?.reachesCluster()) ?? false
      return page?.postMessage({ worker: 'ready', ready } satisfies WorkerTold)
    }
    case 'socket':
      return port && socket(ask, port)
    case 'unwanted':
      if (page) giveUp(page.id, ask.mark)
      return
    case 'cookie':
      return (await cookies).takeFromScript(ask.url, ask.line)
    case 'held':
      return holdOn()
  }
}

/** Opens a WebSocket for a page: with the cookies that the page does not see, and then out of the way. */
async function socket(ask: PageAsk & { page: 'socket' }, port: MessagePort): Promise<void> {
  const line = await findLine()
  if (!line) return port.postMessage({ socket: 'closed', code: 1006, reason: '', clean: false } satisfies SocketTold)
  const url = new URL(ask.target, self.location.origin)
  const request = new Request(url)
  const cookie = await (await cookies).header(url.href, cookieContext(request, 'same-origin') ?? 'strict')
  const headers = outgoing(request, url, 'same-origin', cookie).filter(([name]) => !/^(accept-encoding|sec-fetch-.*)$/.test(name))
  line.socket(url.pathname + url.search, [...headers, ['origin', self.location.origin]], ask.protocols, port)
}
