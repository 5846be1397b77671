/**
 * Opens the app of a service in a window and at an origin of its own.
 *
 * The window's first page (`boot.ts`) gets one RPC channel and drops its reference to the console before the app's scripts
 * run. The app's service worker and pages fork further channels from it (`sw.ts`).
 */
import type { AppMesh } from './app-server'
import { AppServer } from './app-server'
import type { AppsPattern } from './label'
import { NO_APPS, appLabel, appOrigin, loopbackPattern, staticPattern } from './label'
import type { App, Welcome } from './protocol'
import { isRecord } from './protocol'

export type { AppMesh, AppSocket } from './app-server'

/** Time within which the first page of a window loads, in milliseconds. */
const BOOT_TIMEOUT = 30_000

/** Servers per mesh and origin: windows of the same app share its limits. */
const servers = new WeakMap<AppMesh, Map<string, AppServer>>()
/** Key of the origins that were opened, in the console's local storage. */
const OPENED_KEY = 'vc.opened'
/** Maximum number of these origins. */
const MAX_OPENED = 200
let pattern: Promise<AppsPattern> | null = null

/**
 * Returns the origin pattern of this console's apps, read once: `http://{app}.localhost:PORT` if this node serves the console,
 * otherwise from `console.json` beside it. Errors: the reason why services cannot be opened here, one line for users.
 */
export function appsPattern(): Promise<AppsPattern> {
  pattern ??= readPattern()
  return pattern
}

async function readPattern(): Promise<AppsPattern> {
  const local = loopbackPattern(location)
  if (local !== null) return local
  const response = await fetch(new URL('console.json', location.href))
  if (!response.ok) throw new Error(NO_APPS)
  return staticPattern(await response.json().catch(() => null))
}

/** Reports that the server of the console is down, which also serves the first page of an app. */
export class ServerDown extends Error {}

/**
 * Opens a port of `project/service` in a new window. Must be called from a click; resolves when the app has its channel.
 * Errors: `ServerDown` for a service that was not opened before, or another one; one line for users.
 */
export async function openService(mesh: AppMesh, service: string, port: number): Promise<void> {
  const label = appLabel(mesh.claims.aud, service, port)
  const nonce = crypto.randomUUID()
  // Synchronously: browsers block a window that opens later than the click.
  const opened = window.open('about:blank', '_blank')
  if (!opened) throw new Error('The browser blocked the new window. Allow pop-ups for this page.')
  try {
    const origin = appOrigin(await appsPattern(), label, location.origin)
    // An app that was opened before has a service worker, which has its first page.
    if (!openedOrigins().includes(origin) && !(await serverAnswers())) {
      throw new ServerDown(`Nothing answers at ${location.host}, which serves this console and the first page of a service.`)
    }
    opened.location.replace(`${origin}/__vc/boot.html#${nonce}`)
    await hello(opened, origin, nonce, () => {
      const { port1, port2 } = new MessageChannel()
      appServer(mesh, origin, { service, port }).serve(port1)
      opened.postMessage({ vcWelcome: nonce, app: { service, port } } satisfies Welcome, origin, [port2])
    })
    rememberOpened(origin)
  } catch (error) {
    opened.close()
    throw error
  }
}

/** Tells whether the server of this page answers. */
async function serverAnswers(): Promise<boolean> {
  return fetch(location.pathname, { method: 'HEAD', cache: 'no-store' }).then(
    () => true,
    () => false,
  )
}

/** Returns the origins of the apps that were opened before, the last one first. */
function openedOrigins(): string[] {
  try {
    const stored: unknown = JSON.parse(localStorage.getItem(OPENED_KEY) ?? '[]')
    return Array.isArray(stored) ? stored.filter((it) => typeof it === 'string') : []
  } catch {
    return []
  }
}

function rememberOpened(origin: string): void {
  try {
    localStorage.setItem(OPENED_KEY, JSON.stringify([...new Set([origin, ...openedOrigins()])].slice(0, MAX_OPENED)))
  } catch {
    // Blocked or full.
  }
}

/**
 * Resolves with the first hello of the opened window, from its origin and with its nonce. Calls `answer` for each: the window
 * says hello until an answer arrives. Errors: none within `BOOT_TIMEOUT`.
 */
function hello(opened: Window, origin: string, nonce: string, answer: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const done = new AbortController()
    setTimeout(() => {
      done.abort()
      reject(new Error(`Nothing answered at ${origin}. That origin must serve the tunnel's files.`))
    }, BOOT_TIMEOUT)
    const onMessage = (event: MessageEvent<unknown>): void => {
      if (event.source !== opened || event.origin !== origin) return
      if (!isRecord(event.data) || event.data['vcHello'] !== nonce) return
      answer()
      resolve()
    }
    window.addEventListener('message', onMessage, { signal: done.signal })
  })
}

function appServer(mesh: AppMesh, origin: string, app: App): AppServer {
  const ofMesh = servers.get(mesh) ?? new Map<string, AppServer>()
  servers.set(mesh, ofMesh)
  const existing = ofMesh.get(origin)
  if (existing) return existing
  const server = new AppServer(mesh, app)
  ofMesh.set(origin, server)
  // Fails the pending requests of pages at once instead of by timeout.
  window.addEventListener('pagehide', () => server.close())
  return server
}
