import { expect, test } from 'vitest'

import { navItemOf, parseRoute } from '../src/model/route'

test('fragments are parsed into routes', () => {
  expect(parseRoute('#/')).toEqual({ view: 'overview' })
  expect(parseRoute('')).toEqual({ view: 'overview' })
  expect(parseRoute('#/nowhere')).toEqual({ view: 'overview' })
  expect(parseRoute('#/services')).toEqual({ view: 'services' })
  expect(parseRoute('#/services/shop/web')).toEqual({ view: 'service', service: 'shop/web' })
  expect(parseRoute('#/services/shop')).toEqual({ view: 'services' })
  expect(parseRoute('#/logs/shop/web')).toEqual({ view: 'logs', service: 'shop/web', replica: null })
  expect(parseRoute('#/logs/shop/web/1767225600')).toEqual({ view: 'logs', service: 'shop/web', replica: 1767225600 })
  expect(parseRoute('#/logs/shop/web/x')).toEqual({ view: 'logs', service: 'shop/web', replica: null })
  expect(parseRoute('#/services/shop/web/1')).toEqual({ view: 'services' })
  expect(parseRoute('#/logs/%zz/web'), 'invalid percent-encoding').toEqual({ view: 'logs', service: '%zz/web', replica: null })
  expect(parseRoute('#/nodes/alpha')).toEqual({ view: 'node', node: 'alpha' })
  expect(parseRoute('#/nodes')).toEqual({ view: 'overview' })
  expect(parseRoute('#/terminal/shop/web/2')).toEqual({ view: 'terminal', service: 'shop/web', replica: 2 })
  expect(parseRoute('#/terminal/shop/web')).toEqual({ view: 'services' })
  expect(navItemOf(parseRoute('#/nodes/alpha')).title).toBe('Overview')
  expect(navItemOf(parseRoute('#/services/shop/web')).title).toBe('Services')
})
