import { expect, test } from 'vitest'
import type { LogRow } from 'vc-mesh'

import { LogBuffer, type LogFilter, linesAsText, MAX_LINES, visibleRows } from '../src/model/log-buffer'

const all = { replica: null, text: '', onlyErrors: false }

function row(line: string, more: Partial<LogRow> = {}): LogRow {
  return { service: 'shop/web', replica: 1, node: 'n1', time: 1, stream: 'stdout', line, ...more }
}

function push(buffer: LogBuffer, row: LogRow, now = 0): void {
  buffer.push(row, now)
}

test('the newest lines are kept with their numbers', () => {
  const buffer = new LogBuffer()
  for (let n = 1; n <= 3 * MAX_LINES; n += 1) push(buffer, row(`line ${n}`))
  const lines = buffer.lines(all)
  expect(lines).toHaveLength(MAX_LINES)
  expect(lines.at(-1)).toMatchObject({ number: 3 * MAX_LINES, text: `line ${3 * MAX_LINES}` })
  expect(lines[0]?.number).toBe(2 * MAX_LINES + 1)
  expect(buffer.received).toBe(3 * MAX_LINES)
})

test('a returned list does not change', () => {
  const buffer = new LogBuffer()
  push(buffer, row('one'))
  const before = buffer.lines(all)
  push(buffer, row('two'))
  expect(before.map((it) => it.text)).toEqual(['one'])
})

test('lines are filtered by replica, case-insensitive text and number', () => {
  const buffer = new LogBuffer()
  push(buffer, row('GET /cart'))
  push(buffer, row('get /home', { replica: 2 }))
  push(buffer, row('POST /cart', { replica: 2, stream: 'stderr' }))
  const texts = (filter: LogFilter) => buffer.lines(filter).map((it) => it.text)
  expect(texts({ replica: 2, text: '', onlyErrors: false })).toEqual(['get /home', 'POST /cart'])
  expect(texts({ replica: null, text: 'Get', onlyErrors: false })).toEqual(['GET /cart', 'get /home'])
  expect(texts({ replica: 1, text: 'post', onlyErrors: false })).toEqual([])
  expect(buffer.lines({ replica: null, text: 'get', onlyErrors: false }, 1).map((it) => it.text)).toEqual(['get /home'])
  expect(buffer.lines(all).map((it) => it.isError)).toEqual([false, false, true])
  expect(texts({ ...all, onlyErrors: true })).toEqual(['POST /cart'])
})

test('the text of lines has their time, replica and stream, and tells what is missing', () => {
  const buffer = new LogBuffer()
  push(buffer, row('GET /cart', { time: 1_800_000_000_123 }))
  push(buffer, row('slow', { time: null, replica: 2, stream: 'stderr', lost: { lines: 3, bytes: 60 } }))
  expect(linesAsText(buffer.lines(all))).toBe('2027-01-15T08:00:00.123Z 1 stdout GET /cart\n# 3 lines lost here\n- 2 stderr slow\n')
})

test('what was lost before a line is shown with it', () => {
  const buffer = new LogBuffer()
  push(buffer, row('first'))
  push(buffer, row('second', { lost: { lines: 1, bytes: 20 } }))
  push(buffer, row('third', { lost: { lines: 675_000, bytes: 70_000_000 } }))
  push(buffer, row('fourth', { lost: { lines: 0, bytes: 2048 } }))
  expect(buffer.lines(all).map((it) => it.lost)).toEqual(['', '1 line', '675000 lines', '2 KiB of lines'])
})

test('escape sequences are removed, and long lines are truncated', () => {
  const buffer = new LogBuffer()
  push(buffer, row('\x1b[31mred\x1b[0m\x1b[2K \tgrün\r\x07'))
  push(buffer, row('\x1b]0;title\x07done'))
  push(buffer, row('x'.repeat(1_000_000)))
  const [colour, title, long] = buffer.lines(all)
  expect(colour?.text).toBe('red \tgrün')
  expect(title?.text).toBe('done')
  expect(long?.text.length).toBeLessThan(5000)
})

test('bidirectional control characters are escaped', () => {
  const buffer = new LogBuffer()
  push(buffer, row('login \u202etoor\u2069'))
  expect(buffer.lines(all)[0]?.text).toBe('login \\u{202e}toor\\u{2069}')
})

test('a resumed stream has no gaps and no duplicates', () => {
  const buffer = new LogBuffer()
  expect(buffer.resume(0)).toEqual({ tail: 200, since: null })
  for (const [time, line] of [[5000, 'a'], [9000, 'b'], [9000, 'b']] as const) push(buffer, row(line, { time }), time)
  expect(buffer.resume(9000)).toEqual({ tail: null, since: 7000 })
  const other = { replica: 2, time: 8999 }
  push(buffer, row('late', other))
  for (let n = 0; n < 3; n += 1) push(buffer, row('b', { time: 9000 }))
  push(buffer, row('c', { time: 9001 }))
  expect(buffer.lines(all).map(({ text }) => text)).toEqual(['a', 'b', 'b', 'late', 'b', 'c'])
})

test('a resumed stream has no gaps when clocks differ and some nodes were silent', () => {
  const buffer = new LogBuffer()
  buffer.resume(1_000_000)
  push(buffer, row('of an hour ago', { node: 'idle', time: 1_000_000 - 3_600_000 }), 1_000_100)
  push(buffer, row('first', { time: 1_010_000 }), 1_010_000)
  const ahead = { node: 'n2', replica: 2 }
  push(buffer, row('ahead', { ...ahead, time: 1_320_000 }), 1_020_000)
  // n1 had been silent for ten seconds when the stream broke, at 1,020,000 by its clock.
  expect(buffer.resume(1_090_000)).toEqual({ tail: null, since: 1_018_000 })
  push(buffer, row('before its tail', { ...ahead, time: 1_319_000 }), 1_090_100)
  push(buffer, row('ahead', { ...ahead, time: 1_320_000 }), 1_090_100)
  push(buffer, row('second', { time: 1_030_000 }), 1_090_100)
  expect(buffer.lines(all).map(({ text }) => text)).toEqual(['of an hour ago', 'first', 'ahead', 'second'])
})

test('a node without live lines is assumed to have the local clock', () => {
  const buffer = new LogBuffer()
  buffer.resume(1_000_000)
  push(buffer, row('of an hour ago', { time: 1_000_000 - 3_600_000 }), 1_000_100)
  push(buffer, row('ahead', { node: 'n2', replica: 2, time: 1_320_000 }), 1_020_000)
  expect(buffer.resume(1_090_000)).toEqual({ tail: null, since: 1_018_000 })
})

test('dropped lines do not reappear when a node with a fast clock replays more than is kept', () => {
  const buffer = new LogBuffer()
  buffer.resume(1_000_000)
  push(buffer, row('behind', { time: 1_010_000 }), 1_010_000)
  const ahead = (n: number) => row(`line ${n}`, { node: 'n2', replica: 2, time: 1_310_000 + n })
  for (let n = 1; n <= 2 * MAX_LINES; n += 1) push(buffer, ahead(n), 1_010_000 + n)
  const before = buffer.lines(all)
  expect(buffer.resume(1_030_000).since).toBeLessThan(1_020_000)
  for (let n = 1; n <= 2 * MAX_LINES; n += 1) push(buffer, ahead(n), 1_030_100)
  expect(buffer.lines(all)).toEqual(before)
  push(buffer, ahead(2 * MAX_LINES + 1), 1_030_100)
  expect(buffer.lines(all).at(-1)?.text).toBe(`line ${2 * MAX_LINES + 1}`)
})

test('lines without timestamps are not duplicated', () => {
  const buffer = new LogBuffer()
  const time = null
  for (let n = 1; n <= 300; n += 1) push(buffer, row(`line ${n}`, { time }))
  expect(buffer.resume(0)).toEqual({ tail: 200, since: null })
  for (let n = 111; n <= 310; n += 1) push(buffer, row(`line ${n}`, { time }))
  expect(buffer.lines(all).map(({ text }) => text)).toEqual(Array.from({ length: 310 }, (_, n) => `line ${n + 1}`))
})

test('only visible rows and an overscan are rendered', () => {
  expect(visibleRows(0, 600, 20, 5000)).toEqual({ first: 0, end: 42 })
  const middle = visibleRows(2000, 600, 20, 5000)
  expect(middle.first).toBeLessThanOrEqual(100)
  expect(middle.end).toBeGreaterThanOrEqual(130)
  expect(middle.end - middle.first).toBeLessThan(80)
  expect(visibleRows(99_999, 600, 20, 10), 'scrolled past the end').toEqual({ first: 10, end: 10 })
  expect(visibleRows(0, 600, 20, 0)).toEqual({ first: 0, end: 0 })
})
