// Amounts and times as people read them. They are written as `vc` writes them.

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB']

/** `512 B`, `1.5 GiB`. */
export function bytes(amount: number): string {
  let unit = 0
  while (unit + 1 < UNITS.length && amount >= 1023.95) {
    amount /= 1024
    unit += 1
  }
  return `${trimmed(amount, 1)} ${UNITS[unit] ?? ''}`
}

/** `0.5`, `12`: cores out of thousandths. */
export function cores(millis: number): string {
  return trimmed(millis / 1000, 2)
}

/** `3m ago`. Other nodes' clocks may be ahead: that is now. 0 is never. */
export function ago(now: number, then: number): string {
  if (then === 0) return '–'
  const millis = now - then
  return millis < 5000 ? 'just now' : `${duration(millis)} ago`
}

/** `3m`: the largest unit alone. From two units on, so that `90s` is not `1m`. */
export function duration(millis: number): string {
  const seconds = Math.max(0, Math.floor(millis / 1000))
  if (seconds < 120) return `${seconds}s`
  if (seconds < 7200) return `${Math.floor(seconds / 60)}m`
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)}h`
  return `${Math.floor(seconds / 86_400)}d`
}

const CLOCK = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' })
const MOMENT = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'short' })

/** `15:04:05`, in the local time zone. */
export function clock(time: number): string {
  return CLOCK.format(time)
}

/** `23 Nov 2026, 15:04`, in the local time zone. */
export function moment(time: number): string {
  return MOMENT.format(time)
}

/** `1 node`, `3 nodes`. */
export function count(amount: number, noun: string): string {
  return `${amount} ${noun}${amount === 1 ? '' : 's'}`
}

/** The last characters of a peer id: its beginning is the same for all. */
export function shortId(id: string): string {
  return id.slice(-8)
}

function trimmed(value: number, digits: number): string {
  return String(Number(value.toFixed(digits)))
}
