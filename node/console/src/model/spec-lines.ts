// Flattens service specs into lines, to compare two of them side by side.

import { escapeBidi } from './bidi'

export interface SpecLine {
  /** `container.environment.A`, `container.mounts[0].target`. */
  path: string
  now: string | null
  before: string | null
}

/** Returns every value of both specs, sorted by path; `null` where a spec does not set it. */
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

/** Collects the leaves of a value. Empty, false and zero values are omitted: in a spec they mean "not set". */
function walk(path: string, value: unknown, lines: Map<string, string>): void {
  if (value === null || value === undefined || value === '' || value === false || value === 0) return
  const set = (text: string) => lines.set(escapeBidi(path), escapeBidi(text))
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
