/**
 * Recognizes the requests of `EventSource`, which only reconnects after a body that ends or a network error: after a body that
 * fails, as after any status but 200, it is closed for good. So the body of a lost connection ends here, the next request is
 * held until the app can be reached again, and one that cannot be held fails as it would without the tunnel.
 */

/** Tells whether a request is of an `EventSource`: scripts that read such a stream with `fetch` need to see that it was cut. */
export function isEventSource(request: Pick<Request, 'headers' | 'cache'>): boolean {
  return request.headers.get('accept') === 'text/event-stream' && request.cache === 'no-store'
}
