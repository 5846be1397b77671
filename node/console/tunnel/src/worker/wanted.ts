/// <reference lib="webworker" />
/** Requests without an answer, and whether somebody waits for it: browsers do not say so by `Request.signal`, or not all. */

declare const self: ServiceWorkerGlobalScope

/** How often it is asked whether the pages are there that wait, milliseconds. */
const LOOK_EVERY = 5_000
/** Of so many marks it is remembered that they were given up: a message may be here before the request that it is about. */
const MAX_GIVEN_UP = 1024

interface Wanted {
  /** By whom; empty for a navigation. */
  readonly page: string
  /** As `followAborts` has it, if it is marked. */
  readonly mark: string
  /** It is wanted though its page is gone. */
  readonly outlives: boolean
  readonly stop: AbortController
}

const wanted = new Set<Wanted>()
/** Page and mark, the oldest first. A page gives no mark twice, but to where a request is redirected. */
const givenUp = new Set<string>()
let watch: ReturnType<typeof setInterval> | null = null

/**
 * The answer that `ask` gets. Its signal says that the page does not want that any more, or is gone; one that comes back, from
 * where browsers keep pages for the way back, finds its request failed.
 */
export async function whileWanted(
  { request, clientId }: FetchEvent,
  ask: (signal: AbortSignal) => Promise<Response>,
): Promise<Response> {
  const one: Wanted = {
    page: clientId,
    mark: new URL(request.url).hash,
    outlives: request.keepalive || clientId === '',
    stop: new AbortController(),
  }
  wanted.add(one)
  if (givenUp.has(one.page + one.mark)) one.stop.abort()
  watch ??= setInterval(() => void dropGone(), LOOK_EVERY)
  try {
    return await ask(AbortSignal.any([request.signal, one.stop.signal]))
  } catch (error) {
    if (one.stop.signal.aborted) return Response.error()
    throw error
  } finally {
    wanted.delete(one)
    if (wanted.size === 0 && watch !== null) {
      clearInterval(watch)
      watch = null
    }
  }
}

/** A page says that it does not want something any more. */
export function giveUp(page: string, mark: string): void {
  givenUp.add(page + mark)
  for (const oldest of givenUp) {
    if (givenUp.size <= MAX_GIVEN_UP) break
    givenUp.delete(oldest)
  }
  for (const one of wanted) if (one.page === page && one.mark === mark) one.stop.abort()
}

async function dropGone(): Promise<void> {
  const waiting = [...wanted].filter((one) => !one.outlives)
  for (const page of new Set(waiting.map((one) => one.page))) {
    if (await self.clients.get(page)) continue
    for (const one of waiting) if (one.page === page) one.stop.abort()
  }
}
