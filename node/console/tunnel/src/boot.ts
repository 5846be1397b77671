/**
 * Runs on the first page of an app's window, and on the pages that the service worker shows instead of the app's.
 *
 * In a window that the console opened, it gets an RPC channel from the console, passes it to the service worker and loads the
 * app. On a page of the service worker, it does what the page says. Anywhere else, it registers the service worker and waits
 * until that has a channel.
 */
import { loopbackConsoles } from './label'
import type { App, Hello, PageMessage, Welcome, WorkerMessage } from './protocol'
import { isRecord } from './protocol'

/** Time within which the console answers, in milliseconds; it waits for this page. */
const WELCOME_TIMEOUT = 10_000
/** Interval of hellos to the console until it answers, in milliseconds: on a busy machine messages of new windows are lost. */
const HELLO_INTERVAL = 500
/** Interval at which a waiting page asks whether the app is reachable, in milliseconds. */
const POLL_INTERVAL = 2_000

function show(title: string, text: string): void {
  document.title = title
  const heading = document.querySelector('h1')
  const paragraph = document.querySelector('p')
  if (heading) heading.textContent = title
  if (paragraph) paragraph.textContent = text
}

/**
 * Returns the origins from which this page accepts a channel: the sender of the channel controls what the app's origin
 * shows.
 */
async function consoleOrigins(): Promise<string[]> {
  const local = loopbackConsoles(location)
  if (local.length > 0) return local
  const response = await fetch('/__vc/console.json')
  const config: unknown = response.ok ? await response.json() : null
  const origin = isRecord(config) ? config['consoleOrigin'] : null
  if (typeof origin !== 'string' || !origin.startsWith('https://')) {
    throw new Error('/__vc/console.json does not name the console: {"consoleOrigin": "https://…"}')
  }
  return [origin]
}

/** Gets a channel from the window that opened this one. Errors: no answer within `WELCOME_TIMEOUT`. */
async function receiveChannel(opener: Window, nonce: string): Promise<{ port: MessagePort; app: App }> {
  const origins = await consoleOrigins()
  return new Promise((resolve, reject) => {
    const done = new AbortController()
    const timer = setTimeout(() => {
      done.abort()
      reject(new Error('The console did not answer within 10 seconds. Close this window and open the service again.'))
    }, WELCOME_TIMEOUT)
    const onMessage = (event: MessageEvent<unknown>): void => {
      if (event.source !== opener || !origins.includes(event.origin) || !isRecord(event.data)) return
      const { vcWelcome, app } = event.data as Partial<Welcome>
      const [port] = event.ports
      if (vcWelcome !== nonce || !app || !port) return
      // Each hello is answered, also one that was on its way when the first answer came.
      if (done.signal.aborted) return port.close()
      clearTimeout(timer)
      done.abort()
      resolve({ port, app })
    }
    window.addEventListener('message', onMessage)
    const say = (): void => {
      // The browser delivers only the message whose target origin is the opener's.
      for (const origin of origins) opener.postMessage({ vcHello: nonce } satisfies Hello, origin)
    }
    say()
    const again = setInterval(say, HELLO_INTERVAL)
    done.signal.addEventListener('abort', () => clearInterval(again))
  })
}

async function serviceWorker(): Promise<ServiceWorker> {
  await navigator.serviceWorker.register('/__vc/sw.js', { scope: '/', updateViaCache: 'none' })
  const { active } = await navigator.serviceWorker.ready
  if (!active) throw new Error('The browser did not start the service worker.')
  return active
}

function onWorkerMessage(kind: WorkerMessage['worker'], listener: (message: WorkerMessage) => void): void {
  navigator.serviceWorker.addEventListener('message', (event: MessageEvent<unknown>) => {
    if (isRecord(event.data) && event.data['worker'] === kind) listener(event.data as unknown as WorkerMessage)
  })
  navigator.serviceWorker.startMessages()
}

async function boot(nonce: string): Promise<void> {
  const opener = window.opener as Window | null
  if (!opener) return waitForApp()
  const { port, app } = await receiveChannel(opener, nonce).finally(() => {
    // Nothing in this window may reach the console's window from here on.
    window.opener = null
  })
  show(app.service, 'Opening…')
  const worker = await serviceWorker()
  onWorkerMessage('ready', () => location.replace('/__vc/enter'))
  worker.postMessage({ page: 'channel', app, fresh: true } satisfies PageMessage, [port])
}

/** Does what the buttons of a page say: `again` sends its request once more. */
function listenToButtons(): void {
  document.addEventListener('click', ({ target }) => {
    if (!(target instanceof HTMLElement)) return
    switch (target.dataset['do']) {
      case 'again':
        return location.reload()
      case 'back':
        return history.back()
      case 'decline':
        return reloadAfter({ page: 'decline', url: location.href.replace(/#.*/, '') })
    }
  })
}

/** Passes what is entered on the sign-in page to the service worker, and sends the page's request again. */
function listenToSignIn(): void {
  document.querySelector('form')?.addEventListener('submit', (event) => {
    event.preventDefault()
    const fields = new FormData(event.currentTarget as HTMLFormElement)
    reloadAfter({ page: 'sign-in', user: String(fields.get('user')), password: String(fields.get('password')) })
  })
}

/** Sends the service worker a message and reloads the page once it is handled. */
function reloadAfter(message: PageMessage): void {
  onWorkerMessage('ready', () => location.reload())
  navigator.serviceWorker.controller?.postMessage(message)
}

/** Waits until the app is reachable, then loads the page that was requested. */
async function waitForApp(kind?: string): Promise<void> {
  const worker = await serviceWorker()
  const target = location.pathname.startsWith('/__vc/') ? '/' : location.href
  onWorkerMessage('ready', (message) => {
    if (message.worker !== 'ready' || !message.ready) return
    if (target === location.href) location.reload()
    else location.replace(target)
  })
  const poll = (): void => (navigator.serviceWorker.controller ?? worker).postMessage({ page: 'ready' } satisfies PageMessage)
  if (kind === undefined) poll()
  setInterval(poll, POLL_INTERVAL)
}

async function start(): Promise<void> {
  // The service worker sets it on its pages.
  const kind = document.documentElement.dataset['page']
  listenToButtons()
  if (kind === 'sign-in') return listenToSignIn()
  if (kind === 'failed') return
  const nonce = location.pathname === '/__vc/boot.html' ? location.hash.slice(1) : ''
  return nonce === '' ? waitForApp(kind) : boot(nonce)
}

start().catch((error: unknown) => {
  window.opener = null
  show('This service cannot be opened here', error instanceof Error ? error.message : String(error))
})
