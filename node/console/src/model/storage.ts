// Web Storage that never throws: access may be blocked and the quota exhausted, and the page works without it.

type StorageArea = 'localStorage' | 'sessionStorage'

export function readItem(area: StorageArea, key: string): string | null {
  try {
    return globalThis[area].getItem(key)
  } catch {
    return null
  }
}

/** Stores a value; `null` removes it. */
export function writeItem(area: StorageArea, key: string, value: string | null): void {
  try {
    if (value === null) globalThis[area].removeItem(key)
    else globalThis[area].setItem(key, value)
  } catch {
    // Blocked or full.
  }
}
