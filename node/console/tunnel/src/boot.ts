/**
 * The first page of an app's window, and the one that is shown when there is no way to the app.
 *
 * Opened by the console, it takes a line from it, gives it to the service worker, and makes way for the app. Anywhere else
 * it makes sure that the service worker is there, and waits until it has a way.
 */
import { loopbackConsoles } from './label'
import type { App, Hello, PageAsk, Welcome, WorkerTold } from './protocol'
import { isRecord } from './protocol'

/** The console answers within so long, milliseconds; it waits for this page. */
const WELCOME_TIMEOUT = 10_000
/** How often a page that waits asks whether there is a way. */
const ASK_EVERY = 2_000

function say(title: string, text: string): void {
  document.title = title
  const heading = document.querySelector('h1')
  const line = document.querySelector('p')
  if (heading) heading.textContent = title
  if (line) line.textContent = text
}

/** The origins that this page takes a line from; whoever gives it one decides what the app is. */
async function consoleOrigins(): Promise<string[]> {
  const local = loopbackConsoles(location)
  if (local.length > 0) return local
  const answer = await fetch('/__vc/console.json')
  const config: unknown = answer.ok ? await answer.json() : null
  const origin = isRecord(config) ? config['consoleOrigin'] : null
  if (typeof origin !== 'string' || !origin.startsWith('https://')) {
    throw new Error('/__vc/console.json does not name the console: {"consoleOrigin": "https://…"}')
  }
  return [origin]
}

/** Takes a line from the window that opened this one, and cuts the link to it. */
async function takeLine(opener: Window, nonce: string): Promise<{ port: MessagePort; app: App }> {
  const origins = await consoleOrigins()
  return new Promise((resolve, reject) => {
    const over = new AbortController()
    const timer = setTimeout(() => {
      over.abort()
      reject(new Error('The console did not answer.'))
    }, WELCOME_TIMEOUT)
    const onMessage = (event: MessageEvent<unknown>): void => {
      if (event.source !== opener || !origins.includes(event.origin) || !isRecord(event.data)) return
      const { vcWelcome, app } = event.data as Partial<Welcome>
      const [port] = event.ports
      if (vcWelcome !== nonce || !app || !port) return
      clearTimeout(timer)
      over.abort()
      resolve({ port, app })
    }
    window.addEventListener('message', onMessage, { signal: over.signal })
    // Each reaches the opener only if that is where it is.
    for (const origin of origins) opener.postMessage({ vcHello: nonce } satisfies Hello, origin)
  })
}

async function serviceWorker(): Promise<ServiceWorker> {
  await navigator.serviceWorker.register('/__vc/sw.js', { scope: '/', updateViaCache: 'none' })
  const { active } = await navigator.serviceWorker.ready
  if (!active) throw new Error('The browser does not start the service worker.')
  return active
}

function told(what: WorkerTold['worker'], act: (told: WorkerTold) => void): void {
  navigator.serviceWorker.addEventListener('message', (event: MessageEvent<unknown>) => {
    if (isRecord(event.data) && event.data['worker'] === what) act(event.data as unknown as WorkerTold)
  })
  navigator.serviceWorker.startMessages()
}

async function boot(nonce: string): Promise<void> {
  const opener = window.opener as Window | null
  if (!opener) return wait()
  const { port, app } = await takeLine(opener, nonce).finally(() => {
    // From here on nothing in this window can reach the one of the console.
    window.opener = null
  })
  say(app.service, 'Opening…')
  const worker = await serviceWorker()
  told('ready', () => location.replace('/__vc/enter'))
  worker.postMessage({ page: 'line', app, fresh: true } satisfies PageAsk, [port])
}

/** Waits for a way to the app, and then shows what was asked for. */
async function wait(): Promise<void> {
  // The service worker says so of its own pages: what it got for an answer, and to what.
  const { status, method } = document.documentElement.dataset
  // A service that does not answer is tried again by people, and what was sent with a form is not sent twice.
  if (status === '502' || method === 'POST') return
  const worker = await serviceWorker()
  const again = location.pathname.startsWith('/__vc/') ? '/' : location.href
  told('ready', (it) => {
    if (it.worker !== 'ready' || !it.ready) return
    if (again === location.href) location.reload()
    else location.replace(again)
  })
  const ask = (): void => (navigator.serviceWorker.controller ?? worker).postMessage({ page: 'ready' } satisfies PageAsk)
  if (status === undefined) ask()
  setInterval(ask, ASK_EVERY)
}

const nonce = location.pathname === '/__vc/boot.html' ? location.hash.slice(1) : ''
const begun = nonce === '' ? wait() : boot(nonce)
begun.catch((error: unknown) => {
  window.opener = null
  say('This service cannot be opened here', error instanceof Error ? error.message : String(error))
})
