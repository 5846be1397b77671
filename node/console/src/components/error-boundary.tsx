// The error boundary around the views.

import type { ComponentChildren } from 'preact'
import { useErrorBoundary } from 'preact/hooks'

import { errorMessage } from '../model/actions'

/** Renders its children, or the error with ways to recover if one of them throws while rendering. */
export function ErrorBoundary({ children }: { children: ComponentChildren }) {
  const [error, tryAgain] = useErrorBoundary((it: unknown) => console.error(it))
  if (error === undefined) return <>{children}</>
  return (
    <main class="sign-in">
      <form onSubmit={(event) => event.preventDefault()}>
        <h1>This page cannot be shown</h1>
        <p role="alert" class="bad-text">
          {errorMessage(error)}
        </p>
        <p class="quiet">
          The usual cause is a node whose version differs from that of this console. Running services are not affected.
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
