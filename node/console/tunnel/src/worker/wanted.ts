/// <reference lib="webworker" />
/** Requests without an answer, and whether somebody waits for it: browsers do not say so by `Request.signal`, or not all. */

declare const self: ServiceWorkerGlobalScope

/** How often it is asked whether the pages are there that wait, milliseconds. */
const LOOK_EVERY = 5_000

interface Wanted {
  /** As the page has it, `followAborts`' mark included. */
  readonly url: string
  readonly stop: AbortController
}

/** By the page that waits. A navigation has none. */
const wanted = new Map<string, Set<Wanted>>()
let watch: ReturnType<typeof setInterval> | null = null

/** What `ask` comes to. Its signal says that its page does not want that any more, or is gone. */
export async function whileWanted<T>({ request, clientId }: FetchEvent, ask: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const one: Wanted = { url: request.url, stop: new AbortController() }
  const ofPage = wanted.get(clientId) ?? new Set()
  wanted.set(clientId, ofPage.add(one))
  watch ??= setInterval(() => void dropGone(), LOOK_EVERY)
  try {
    return await ask(AbortSignal.any([request.signal, one.stop.signal]))
  } finally {
    ofPage.delete(one)
    if (ofPage.size === 0 && wanted.get(clientId) === ofPage) wanted.delete(clientId)
    if (wanted.size === 0 && watch !== null) {
      clearInterval(watch)
      watch = null
    }
  }
}

/** A page says that it does not want something any more. */
export function giveUp(page: string, url: string): void {
  for (const one of wanted.get(page) ?? []) if (one.url === url) one.stop.abort()
}

async function dropGone(): Promise<void> {
  for (const [page, all] of [...wanted]) {
    if (page === '' || (await self.clients.get(page))) continue
    for (const one of all) one.stop.abort()
  }
}
