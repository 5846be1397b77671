import { useEffect, useRef } from 'preact/hooks'

import { DeployFollow } from '../parts/deploy-follow'
import { DeployReview } from '../parts/deploy-review'
import { draft, step, takeFile, tryDry } from '../deployment'
import { useSession } from '../state'

export function Deploy() {
  const at = step.value
  const title = useRef<HTMLHeadingElement>(null)
  useEffect(() => {
    // What was pressed has gone with its step, and the focus with it.
    if (document.activeElement === document.body) title.current?.focus()
  }, [at.step])
  return (
    <>
      <h1 ref={title} tabIndex={-1}>
        Deploy
      </h1>
      <div role="status" class="unseen">
        {at.step === 'reading' && 'The node reads the file.'}
        {at.step === 'review' && 'Dry run is ready.'}
      </div>
      {at.step === 'choose' && <Choose problem={at.problem} />}
      {at.step === 'reading' && <p class="quiet">The node reads the file and plans …</p>}
      {at.step === 'review' && <DeployReview review={at.review} />}
      {at.step === 'follow' && <DeployFollow lines={at.lines} following={at.following} />}
    </>
  )
}

function Choose({ problem }: { problem: string }) {
  const session = useSession()
  const file = useRef<HTMLInputElement>(null)
  const alert = useRef<HTMLParagraphElement>(null)
  useEffect(() => alert.current?.focus(), [problem])
  const { name, text, project } = draft.value
  return (
    <form
      class="choose"
      onSubmit={(event) => {
        event.preventDefault()
        if (text.trim()) void tryDry(session)
      }}
    >
      {problem && (
        <p ref={alert} role="alert" tabIndex={-1} class="banner bad">
          {problem}
        </p>
      )}
      <p class="quiet">
        Drop a Compose file anywhere on the page, choose one, or paste it. You see what it changes and where everything would
        go before anything happens.
      </p>
      <label class="field">
        <span>Compose file{name && <span class="quiet"> {name}</span>}</span>
        <textarea
          rows={14}
          spellcheck={false}
          placeholder={'services:\n  web:\n    image: nginx:alpine\n    ports: ["8080:80"]\n    deploy: { replicas: 3 }'}
          value={text}
          onInput={(event) => (draft.value = { ...draft.value, text: event.currentTarget.value })}
        />
      </label>
      <div class="choose-foot">
        <label class="field">
          <span>
            Project <span class="quiet">if the file has no name</span>
          </span>
          <input
            type="text"
            spellcheck={false}
            autocomplete="off"
            value={project}
            onInput={(event) => (draft.value = { ...draft.value, project: event.currentTarget.value })}
          />
        </label>
        <input
          ref={file}
          type="file"
          hidden
          accept=".yml,.yaml,.json"
          aria-label="Compose file"
          onChange={(event) => {
            const [chosen] = event.currentTarget.files ?? []
            if (chosen) void takeFile(chosen, session)
          }}
        />
        <button type="button" class="button" onClick={() => file.current?.click()}>
          Choose a file
        </button>
        <button type="submit" class="button primary" aria-disabled={!text.trim() || !session.isLive.value}>
          Dry run
        </button>
      </div>
    </form>
  )
}
