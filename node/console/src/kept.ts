// What the browser keeps for the page. It may be told to keep nothing, or have no room: then nothing is kept.

type Where = 'localStorage' | 'sessionStorage'

export function kept(where: Where, key: string): string | null {
  try {
    return globalThis[where].getItem(key)
  } catch {
    return null
  }
}

/** `null`: nothing any more. */
export function keep(where: Where, key: string, value: string | null): void {
  try {
    if (value === null) globalThis[where].removeItem(key)
    else globalThis[where].setItem(key, value)
  } catch {
    // The page goes on without.
  }
}
