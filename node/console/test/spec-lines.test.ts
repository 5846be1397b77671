import { expect, test } from 'vitest'

import { specLines } from '../src/model/spec-lines'

test('two specs are compared value by value', () => {
  const now = { container: { image: 'web:2', environment: { A: '1' }, mounts: [{ target: '/data' }], user: null, stop_grace_ms: 0 }, ports: [] }
  const before = { container: { image: 'web:1', command: ['serve', '-v'] } }
  expect(specLines(now, before)).toEqual([
    { path: 'container.command', now: null, before: 'serve -v' },
    { path: 'container.environment.A', now: '1', before: null },
    { path: 'container.image', now: 'web:2', before: 'web:1' },
    { path: 'container.mounts[0].target', now: '/data', before: null },
  ])
  expect(specLines(null, null)).toEqual([])
})

test('bidirectional control characters in a spec are escaped', () => {
  const spec = { environment: { 'A\u2066': 'user\u202e nimda' }, command: ['\u200fx', 'עברית'] }
  expect(specLines(spec, null)).toEqual([
    { path: 'command', now: '\\u{200f}x עברית', before: null },
    { path: 'environment.A\\u{2066}', now: 'user\\u{202e} nimda', before: null },
  ])
})
