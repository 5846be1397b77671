// What is there instead of a view that cannot be shown.

import type { ComponentChildren } from 'preact'
import { useErrorBoundary } from 'preact/hooks'

import { messageOf } from '../actions'

/** Shows what is in it. If that fails, what went wrong and the ways on: without it the page would stay as it was, and dead. */
export function Guarded({ children }: { children: ComponentChildren }) {
  const [error, tryAgain] = useErrorBoundary((it: unknown) => console.error(it))
  if (error === undefined) return <>{children}</>
  return (
    <main class="sign-in">
      <form onSubmit={(event) => event.preventDefault()}>
        <h1>This page cannot be shown</h1>
        <p role="alert" class="bad-text">
          {messageOf(error)}
        </p>
        <p class="quiet">
          Most likely a node says what this console does not understand: it may be newer or older. The services do not notice.
        </p>
        <button type="button" class="button primary wide" onClick={tryAgain}>
          Try again
        </button>
        <button type="button" class="button wide" onClick={() => location.reload()}>
          Reload
        </button>
      </form>
    </main>
  )
}
