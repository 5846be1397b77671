// How something is: a shape and a word, so that it does not take colour to tell.

import type { Condition, Tone } from '../services'

/** The shapes, in a square of 12. */
function Shape({ tone }: { tone: Tone }) {
  switch (tone) {
    case 'good':
      return <circle cx="6" cy="6" r="4" class="fill" />
    case 'busy':
      return (
        <>
          <circle cx="6" cy="6" r="4" class="stroke" />
          <path d="M6 2a4 4 0 0 1 0 8z" class="fill" />
        </>
      )
    case 'idle':
      return <circle cx="6" cy="6" r="3.5" class="stroke" />
    case 'warn':
      return <path d="M6 1.6 11 10.4H1z" class="fill" />
    case 'bad':
      return (
        <>
          <rect x="1.5" y="1.5" width="9" height="9" rx="1.5" class="fill" />
          <path d="m4.2 4.2 3.6 3.6m0-3.6L4.2 7.8" class="cut" />
        </>
      )
  }
}

export function Shaped({ tone }: { tone: Tone }) {
  return (
    <svg class={`shape ${tone}`} viewBox="0 0 12 12" aria-hidden="true">
      <Shape tone={tone} />
    </svg>
  )
}

export function Mark({ condition }: { condition: Condition }) {
  return (
    <span class={`mark ${condition.tone}`}>
      <Shaped tone={condition.tone} />
      {condition.word}
    </span>
  )
}
