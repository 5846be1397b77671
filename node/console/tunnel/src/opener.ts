/**
 * `Open` on a service: its app in a window of its own, at an origin of its own.
 *
 * The window's first page (`boot.ts`) gets one line and cuts its link to the console before anything of the app runs.
 * From then on the app's service worker and pages hand lines on among themselves (`sw.ts`).
 */
import type { AppsPattern } from './label'
import { NO_APPS, appLabel, appOrigin, loopbackPattern, staticPattern } from './label'
import type { App, Welcome } from './protocol'
import { isRecord } from './protocol'
import type { AppMesh } from './serve'
import { AppServer } from './serve'

export type { AppMesh, AppSocket } from './serve'

/** The first page of a window has so long, milliseconds, to load. */
const BOOT_TIMEOUT = 30_000

/** Of each mesh, by origin: opening an app a second time shares the limits of the first. */
const servers = new WeakMap<AppMesh, Map<string, AppServer>>()
let pattern: Promise<AppsPattern> | null = null

/**
 * Where this console's apps are, asked for once: `http://{app}.localhost:PORT` when it is served on this node, else
 * what `console.json` beside it says. Errors: one line for people on why services cannot be opened here.
 */
export function appsPattern(): Promise<AppsPattern> {
  pattern ??= readPattern()
  return pattern
}

async function readPattern(): Promise<AppsPattern> {
  const local = loopbackPattern(location)
  if (local !== null) return local
  const answer = await fetch(new URL('console.json', location.href))
  if (!answer.ok) throw new Error(NO_APPS)
  return staticPattern(await answer.json().catch(() => null))
}

/**
 * Opens a port of `project/service` in a new window; to be called from a click. Done when the app has its line. Errors:
 * one line for people.
 */
export async function openService(mesh: AppMesh, service: string, port: number): Promise<void> {
  const label = appLabel(mesh.claims.aud, service, port)
  const local = loopbackPattern(location)
  const nonce = crypto.randomUUID()
  const firstPage = (origin: string): string => `${origin}/__vc/boot.html#${nonce}`
  let origin = local && appOrigin(local, label, location.origin)
  // At once: browsers refuse a window that comes later than the click.
  const opened = window.open(origin ? firstPage(origin) : 'about:blank', '_blank')
  if (!opened) throw new Error('The browser refused to open a window: allow pop-ups for this page.')
  try {
    if (!origin) {
      origin = appOrigin(await appsPattern(), label, location.origin)
      opened.location.replace(firstPage(origin))
    }
    await hello(opened, origin, nonce)
  } catch (error) {
    opened.close()
    throw error
  }
  const { port1, port2 } = new MessageChannel()
  appServer(mesh, origin, { service, port }).serve(port1)
  opened.postMessage({ vcWelcome: nonce, app: { service, port } } satisfies Welcome, origin, [port2])
}

/** Waits for the word of the window that was opened, at the origin that it was opened at, and of nobody else. */
function hello(opened: Window, origin: string, nonce: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const over = new AbortController()
    const timer = setTimeout(() => {
      over.abort()
      reject(new Error(`Nothing answered at ${origin}: it has to serve the tunnel's files.`))
    }, BOOT_TIMEOUT)
    const onMessage = (event: MessageEvent<unknown>): void => {
      if (event.source !== opened || event.origin !== origin) return
      if (!isRecord(event.data) || event.data['vcHello'] !== nonce) return
      clearTimeout(timer)
      over.abort()
      resolve()
    }
    window.addEventListener('message', onMessage, { signal: over.signal })
  })
}

function appServer(mesh: AppMesh, origin: string, app: App): AppServer {
  const ofMesh = servers.get(mesh) ?? new Map<string, AppServer>()
  servers.set(mesh, ofMesh)
  const known = ofMesh.get(origin)
  if (known) return known
  const server = new AppServer(mesh, app)
  ofMesh.set(origin, server)
  // Whoever waits for an answer hears at once that there will be none.
  window.addEventListener('pagehide', () => server.close())
  return server
}
