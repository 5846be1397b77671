/** Time that a new network may need until it has a route, in milliseconds. */
const SETTLE_TIME = 1200

/**
 * Calls `onChange` when the network may have changed or come back, and again after `SETTLE_TIME`. Returns the function
 * that stops this.
 */
export function onNetworkChange(onChange: () => void): () => void {
  const control = new AbortController()
  const { signal } = control
  let timer: ReturnType<typeof setTimeout> | undefined
  const listener = (): void => {
    onChange()
    clearTimeout(timer)
    timer = setTimeout(onChange, SETTLE_TIME)
  }
  globalThis.addEventListener?.('online', listener, { signal })
  if (typeof document !== 'undefined') {
    document.addEventListener('visibilitychange', () => document.visibilityState === 'visible' && listener(), { signal })
  }
  // Chromium only: a phone changes networks without going offline.
  const { connection } = navigator as Navigator & { connection?: EventTarget }
  connection?.addEventListener('change', listener, { signal })
  return () => {
    clearTimeout(timer)
    control.abort()
  }
}
