/** Calls `listener` when the network may be there again or be another. Returns what ends that. */
export function whenReachable(listener: () => void): () => void {
  const control = new AbortController()
  const { signal } = control
  globalThis.addEventListener?.('online', listener, { signal })
  if (typeof document !== 'undefined') {
    document.addEventListener('visibilitychange', () => document.visibilityState === 'visible' && listener(), { signal })
  }
  // Chromium's alone: a phone goes from one network to another without having been offline.
  const { connection } = navigator as Navigator & { connection?: EventTarget }
  connection?.addEventListener('change', listener, { signal })
  return () => control.abort()
}
