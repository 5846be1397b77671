import type { ServiceDiff } from 'vc-mesh'

import { concerned, deploy, DEPLOYING, startOver, tryDry, type Review } from '../deployment'
import { useSession } from '../state'
import { count } from '../units'
import { Act } from './act'
import { Changes } from './changes'
import { Shaped } from './mark'
import { Placements } from './placements'

/** What would change, and where it would go: nothing has happened yet. */
export function DeployReview({ review }: { review: Review }) {
  const session = useSession()
  const { name, composed, diff, isInDoubt } = review
  return (
    <>
      <p class="headline-line">
        <b>{name || 'The file'}</b> as project <b>{composed.project}</b>:{' '}
        {diff.length === 0 ? 'nothing changes' : `${count(diff.length, 'service')} would change`}.{' '}
        {isInDoubt ? (
          <span class="bad-text">A node was lost while it deployed this and may have done it. What you see here is asked anew.</span>
        ) : (
          <span class="quiet">This is a dry run: nothing has happened yet.</span>
        )}
      </p>
      {composed.warnings.length > 0 && (
        <ul class="concerns" aria-label="Warnings">
          {composed.warnings.map((line) => (
            <li key={line}>
              <Shaped tone="warn" />
              <span>{line}</span>
            </li>
          ))}
        </ul>
      )}
      <div class="side-by-side">
        <section aria-labelledby="changes-title">
          <h2 id="changes-title">What changes</h2>
          {diff.length === 0 && <p class="empty">All of it is deployed as it is.</p>}
          {diff.map((it) => (
            <Diff key={it.service} diff={it} />
          ))}
        </section>
        <section aria-labelledby="places-title">
          <h2 id="places-title">Where it would go</h2>
          <Placements plan={concerned(review)} />
        </section>
      </div>
      <div class="actions end">
        <button type="button" class="button" onClick={startOver}>
          Edit
        </button>
        <button type="button" class="button" onClick={() => void tryDry(session, isInDoubt)}>
          Check again
        </button>
        <Act
          needs="deployer"
          subject={DEPLOYING}
          class="button primary"
          because={diff.length === 0 ? 'Nothing would change.' : ''}
          onAct={() => void deploy(session, review)}
        >
          Deploy
        </Act>
      </div>
    </>
  )
}

function Diff({ diff }: { diff: ServiceDiff }) {
  return (
    <div class="diff">
      <h3>
        {diff.service} <span class="tag">{diff.created ? 'new' : 'changed'}</span>
      </h3>
      <Changes lines={diff.changes} />
    </div>
  )
}
