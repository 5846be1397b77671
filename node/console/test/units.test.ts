import { expect, test } from 'vitest'

import { bytes, cores, count, duration, relativeTime } from '../src/model/units'

test('amounts are formatted as vc prints them', () => {
  const GIB = 1024 ** 3
  expect([0, 1023, 1024, 1536, 512 * 1024 ** 2, 1.5 * GIB, 8_242_049_024].map(bytes)).toEqual([
    '0 B',
    '1023 B',
    '1 KiB',
    '1.5 KiB',
    '512 MiB',
    '1.5 GiB',
    '7.7 GiB',
  ])
  expect(bytes(1024 ** 2 - 1), 'rounded up to the next unit').toBe('1 MiB')
  expect([0, 500, 1250, 12_000].map(cores)).toEqual(['0', '0.5', '1.25', '12'])
})

test('relative times use the largest unit of which there are at least two', () => {
  const now = 1_800_000_000_000
  const texts = [12, 119, 200, 7200, 86_400, 200_000].map((seconds) => relativeTime(now, now - seconds * 1000))
  expect(texts).toEqual(['12s ago', '119s ago', '3m ago', '2h ago', '24h ago', '2d ago'])
  expect(relativeTime(now, now + 60_000), "another node's clock is ahead").toBe('just now')
  expect(relativeTime(now, 0), 'never').toBe('–')
  expect(duration(-5)).toBe('0s')
  expect([count(1, 'node'), count(0, 'node')]).toEqual(['1 node', '0 nodes'])
})
