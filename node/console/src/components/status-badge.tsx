// Status as an icon and a label: distinguishable without colour.

import type { Status, Tone } from '../model/status'

/** Shapes in a 12 × 12 view box. */
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

export function StatusIcon({ tone }: { tone: Tone }) {
  return (
    <svg class={`shape ${tone}`} viewBox="0 0 12 12" aria-hidden="true">
      <Shape tone={tone} />
    </svg>
  )
}

export function StatusBadge({ status }: { status: Status }) {
  return (
    <span class={`status-badge ${status.tone}`}>
      <StatusIcon tone={status.tone} />
      {status.label}
    </span>
  )
}
