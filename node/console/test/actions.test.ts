import { expect, test } from 'vitest'

import { messageOf } from '../src/actions'

test('what went wrong is told as a sentence, and keys and names stay as they are', () => {
  const cases = [
    ['the node is gone', 'The node is gone'],
    ['services.b.env_file: missing', 'services.b.env_file: missing'],
    ['d2/b is to be built', 'd2/b is to be built'],
    ['gone.', 'Gone.'],
  ] as const
  for (const [text, wanted] of cases) expect(messageOf(new Error(text))).toBe(wanted)
  expect(messageOf('refused')).toBe('Refused')
})
