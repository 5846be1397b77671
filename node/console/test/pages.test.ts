import { expect, test } from 'vitest'

import { placeOf, readRoute } from '../src/route'
import { specLines } from '../src/spec-lines'

test('the address names the view', () => {
  expect(readRoute('#/')).toEqual({ view: 'overview' })
  expect(readRoute('')).toEqual({ view: 'overview' })
  expect(readRoute('#/nowhere')).toEqual({ view: 'overview' })
  expect(readRoute('#/services')).toEqual({ view: 'services' })
  expect(readRoute('#/services/shop/web')).toEqual({ view: 'service', service: 'shop/web' })
  expect(readRoute('#/services/shop')).toEqual({ view: 'services' })
  expect(readRoute('#/logs/shop/web')).toEqual({ view: 'logs', service: 'shop/web' })
  expect(readRoute('#/logs/%zz/web'), 'not an encoding').toEqual({ view: 'logs', service: '%zz/web' })
  expect(placeOf(readRoute('#/services/shop/web')).title).toBe('Services')
})

test('two specifications are laid side by side, a value a line', () => {
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

test('signs that turn the direction of reading are seen in a specification', () => {
  const spec = { environment: { 'A\u2066': 'user\u202e nimda' }, command: ['\u200fx', 'עברית'] }
  expect(specLines(spec, null)).toEqual([
    { path: 'command', now: '\\u{200f}x עברית', before: null },
    { path: 'environment.A\\u{2066}', now: 'user\\u{202e} nimda', before: null },
  ])
})
