import { expect, test } from 'vitest'

import { errorMessage } from '../src/model/actions'

test('error messages are capitalized unless they start with a key or a name', () => {
  const cases = [
    ['the node is gone', 'The node is gone'],
    ['services.b.env_file: missing', 'services.b.env_file: missing'],
    ['d2/b is to be built', 'd2/b is to be built'],
    ['gone.', 'Gone.'],
  ] as const
  for (const [text, expected] of cases) expect(errorMessage(new Error(text))).toBe(expected)
  expect(errorMessage('refused')).toBe('Refused')
})
