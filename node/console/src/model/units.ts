// Formats amounts and times as `vc` does.

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB']

/** Formats bytes: `512 B`, `1.5 GiB`. */
export function bytes(amount: number): string {
  let unit = 0
  while (unit + 1 < UNITS.length && amount >= 1023.95) {
    amount /= 1024
    unit += 1
  }
  return `${decimal(amount, 1)} ${UNITS[unit] ?? ''}`
}

/** Formats thousandths of a core as cores: `0.5`, `12`. */
export function cores(millis: number): string {
  return decimal(millis / 1000, 2)
}

/** Formats a time relative to `now`: `3m ago`; `just now` for the future (nodes' clocks may be ahead); `–` for 0. */
export function relativeTime(now: number, then: number): string {
  if (then === 0) return '–'
  const millis = now - then
  return millis < 5000 ? 'just now' : `${duration(millis)} ago`
}

/** Formats milliseconds in the largest unit of which there are at least two: `90s`, `3m`. */
export function duration(millis: number): string {
  const seconds = Math.max(0, Math.floor(millis / 1000))
  if (seconds < 120) return `${seconds}s`
  if (seconds < 7200) return `${Math.floor(seconds / 60)}m`
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)}h`
  return `${Math.floor(seconds / 86_400)}d`
}

const TIME_OF_DAY = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' })
const DATE_TIME = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'short' })

/** Formats a time in the local time zone: `15:04:05`. */
export function timeOfDay(time: number): string {
  return TIME_OF_DAY.format(time)
}

/** Formats a time in the local time zone: `23 Nov 2026, 15:04`. */
export function dateTime(time: number): string {
  return DATE_TIME.format(time)
}

/** Formats a count: `1 node`, `3 nodes`. */
export function count(amount: number, noun: string, plural = `${noun}s`): string {
  return `${amount} ${amount === 1 ? noun : plural}`
}

/** Returns the last 8 characters of a peer id: all ids start alike. */
export function shortId(id: string): string {
  return id.slice(-8)
}

/** Returns `part / whole` clamped to 0..1; 0 if `whole` is 0. */
export function fraction(part: number, whole: number): number {
  return whole <= 0 ? 0 : Math.min(1, Math.max(0, part / whole))
}

/** Formats with at most `digits` decimals, without trailing zeros. */
function decimal(value: number, digits: number): string {
  return String(Number(value.toFixed(digits)))
}
