// A service's specification as lines, so that two of them can be laid side by side.

import { withoutTurns } from './bidi'

export interface SpecLine {
  path: string
  now: string | null
  before: string | null
}

/** Every value with its path, in the order of the paths. `before` is `null` where there is nothing to compare with. */
export function specLines(now: unknown, before: unknown): SpecLine[] {
  const [left, right] = [flatten(now), flatten(before)]
  const paths = [...new Set([...left.keys(), ...right.keys()])].toSorted()
  return paths.map((path) => ({ path, now: left.get(path) ?? null, before: right.get(path) ?? null }))
}

function flatten(value: unknown): Map<string, string> {
  const lines = new Map<string, string>()
  walk('', value, lines)
  return lines
}

/** What is empty, zero or not set says nothing and is left out: there, zero is no limit, no pause, nothing reserved. */
function walk(path: string, value: unknown, lines: Map<string, string>): void {
  if (value === null || value === undefined || value === '' || value === false || value === 0) return
  const set = (text: string) => lines.set(withoutTurns(path), withoutTurns(text))
  if (typeof value !== 'object') {
    set(String(value))
  } else if (Array.isArray(value) && value.every((it) => typeof it !== 'object')) {
    if (value.length > 0) set(value.map(String).join(' '))
  } else {
    for (const [key, inner] of Object.entries(value)) {
      const step = Array.isArray(value) ? `[${key}]` : path === '' ? key : `.${key}`
      walk(path + step, inner, lines)
    }
  }
}
