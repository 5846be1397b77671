/** A network that has just come may take this long until it leads anywhere, ms: it has an address before it has a route. */
const SETTLE_TIME = 1200

/** Calls `onChange` when the network may be there again or be another, and again when that has timer. Returns what ends that. */
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
  // Chromium's alone: a phone goes from one network to another without having been offline.
  const { connection } = navigator as Navigator & { connection?: EventTarget }
  connection?.addEventListener('change', listener, { signal })
  return () => {
    clearTimeout(timer)
    control.abort()
  }
}
