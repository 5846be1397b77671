import { useEffect, useRef } from 'preact/hooks'

import { DeployProgress } from '../components/deploy-progress'
import { DeployReview } from '../components/deploy-review'
import { draft, dryRun, loadFile, step } from '../model/deployment'
import { useSession } from '../model/state'

export function Deploy() {
  const at = step.value
  const title = useRef<HTMLHeadingElement>(null)
  useEffect(() => {
    // The focused button was unmounted with the previous step.
    if (document.activeElement === document.body) title.current?.focus()
  }, [at.step])
  return (
    <>
      <h1 ref={title} tabIndex={-1}>
        Deploy
      </h1>
      <div role="status" class="visually-hidden">
        {at.step === 'reading' && 'Reading the file.'}
        {at.step === 'review' && 'The dry run is ready.'}
      </div>
      {at.step === 'choose' && <Choose problem={at.problem} />}
      {at.step === 'reading' && <p class="quiet">Reading the file and planning…</p>}
      {at.step === 'review' && <DeployReview review={at.review} />}
      {at.step === 'follow' && <DeployProgress lines={at.lines} rollout={at.rollout} />}
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
        if (text.trim()) void dryRun(session)
      }}
    >
      {problem && (
        <p ref={alert} role="alert" tabIndex={-1} class="banner bad">
          {problem}
        </p>
      )}
      <p class="quiet">
        Drop a Compose file anywhere on the page, choose one, or paste it. A dry run shows the changes and the placement before
        anything is deployed.
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
            const [selected] = event.currentTarget.files ?? []
            if (selected) void loadFile(selected, session)
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
