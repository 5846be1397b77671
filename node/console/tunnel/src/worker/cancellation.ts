/// <reference lib="webworker" />
/** Cancels requests whose page aborted them or is closed: `Request.signal` does not report that in every browser. */

declare const self: ServiceWorkerGlobalScope

/** Interval at which the pages of pending requests are looked up, in milliseconds. */
const CHECK_INTERVAL = 5_000
/** Maximum number of remembered aborts: an abort may arrive before the request that it belongs to. */
const MAX_ABORTED = 1024

interface PendingRequest {
  /** Client id of the page; empty for a navigation. */
  readonly page: string
  /** The mark that `reportAborts` added, if any. */
  readonly mark: string
  /** Whether the request continues after its page is closed. */
  readonly outlivesPage: boolean
  readonly stop: AbortController
}

const pending = new Set<PendingRequest>()
/** Page and mark of the aborted requests, oldest first. A mark repeats only where a request is redirected. */
const aborted = new Set<string>()
let timer: ReturnType<typeof setInterval> | null = null

/**
 * Runs `respond` with a signal that aborts when the page aborts the request or is closed. A cancelled request gets a network
 * error, which a page restored from the back/forward cache sees.
 */
export async function withCancellation(
  { request, clientId }: FetchEvent,
  respond: (signal: AbortSignal) => Promise<Response>,
): Promise<Response> {
  const one: PendingRequest = {
    page: clientId,
    mark: new URL(request.url).hash,
    outlivesPage: request.keepalive || clientId === '',
    stop: new AbortController(),
  }
  pending.add(one)
  if (aborted.has(one.page + one.mark)) one.stop.abort()
  timer ??= setInterval(() => void cancelOfClosedPages(), CHECK_INTERVAL)
  try {
    return await respond(AbortSignal.any([request.signal, one.stop.signal]))
  } catch (error) {
    if (one.stop.signal.aborted) return Response.error()
    throw error
  } finally {
    pending.delete(one)
    if (pending.size === 0 && timer !== null) {
      clearInterval(timer)
      timer = null
    }
  }
}

/** Cancels the requests of a page that carry a mark, pending or still to arrive. */
export function cancelRequest(page: string, mark: string): void {
  aborted.add(page + mark)
  for (const oldest of aborted) {
    if (aborted.size <= MAX_ABORTED) break
    aborted.delete(oldest)
  }
  for (const one of pending) if (one.page === page && one.mark === mark) one.stop.abort()
}

async function cancelOfClosedPages(): Promise<void> {
  const bound = [...pending].filter((one) => !one.outlivesPage)
  for (const page of new Set(bound.map((one) => one.page))) {
    if (await self.clients.get(page)) continue
    for (const one of bound) if (one.page === page) one.stop.abort()
  }
}
