/// <reference lib="webworker" />
/**
 * Runs as the service worker of the console's origin and keeps the files of the console, so that an open console can be
 * reloaded while the node that serves it is down: its connection is to any node. Everything else is requested as ever.
 */

export {}

declare const self: ServiceWorkerGlobalScope
/** The files of this build but the page, and a digest of all of them. Set by the build. */
declare const FILES: string[]
declare const VERSION: string

const PREFIX = 'vc-console-'
const CACHE = PREFIX + VERSION
/** Time within which the node answers with the page, in milliseconds; after it, or if there is no node, the kept one is shown. */
const PAGE_TIMEOUT = 3_000

const page = new URL('./', self.location.href)
const files = new Set(FILES.map((name) => new URL(name, page).href))

async function install(): Promise<void> {
  const cache = await caches.open(CACHE)
  await cache.addAll([page.href, ...files])
  await self.skipWaiting()
}

async function activate(): Promise<void> {
  const old = (await caches.keys()).filter((name) => name.startsWith(PREFIX) && name !== CACHE)
  await Promise.all(old.map((name) => caches.delete(name)))
  await self.clients.claim()
}

/** Returns the page of the server, or the kept one if there is no server. */
async function currentPage(): Promise<Response> {
  try {
    return await fetch(page, { signal: AbortSignal.timeout(PAGE_TIMEOUT), cache: 'no-cache' })
  } catch (error) {
    const kept = await caches.match(page.href)
    if (kept) return kept
    throw error
  }
}

self.addEventListener('install', (event) => event.waitUntil(install()))
self.addEventListener('activate', (event) => event.waitUntil(activate()))
self.addEventListener('fetch', (event) => {
  const { method, mode, url } = event.request
  if (method !== 'GET') return
  const target = new URL(url)
  target.hash = ''
  // The names of files contain a digest of their content.
  if (files.has(target.href)) event.respondWith(caches.match(target.href).then((kept) => kept ?? fetch(event.request)))
  else if (mode === 'navigate' && target.href === page.href) event.respondWith(currentPage())
})
