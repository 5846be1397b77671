import type { ServiceDiff } from 'vc-mesh'

import { deploy, DEPLOY_ACTION, dryRun, relevantPlan, type Review, startOver } from '../model/deployment'
import { useSession } from '../model/state'
import { count } from '../model/units'
import { ActionButton } from './action-button'
import { ChangeList } from './change-list'
import { Placements } from './placements'
import { StatusIcon } from './status-badge'

/** Shows the result of a dry run: changes and placements. */
export function DeployReview({ review }: { review: Review }) {
  const session = useSession()
  const { name, composed, diff, mayBeDeployed } = review
  return (
    <>
      <p class="headline-line">
        <b>{name || 'Compose file'}</b>, project <b>{composed.project}</b>:{' '}
        {diff.length === 0 ? 'no changes' : `${count(diff.length, 'service')} would change`}.{' '}
        {mayBeDeployed ? (
          <span class="bad-text">
            The connection was lost during the deployment, which may have been applied. This is a new dry run.
          </span>
        ) : (
          <span class="quiet">This is a dry run: nothing has been deployed yet.</span>
        )}
      </p>
      {composed.warnings.length > 0 && (
        <ul class="problems" aria-label="Warnings">
          {composed.warnings.map((line) => (
            <li key={line}>
              <StatusIcon tone="warn" />
              <span>{line}</span>
            </li>
          ))}
        </ul>
      )}
      <div class="side-by-side">
        <section aria-labelledby="changes-title">
          <h2 id="changes-title">Changes</h2>
          {diff.length === 0 && <p class="empty">Everything in this file is deployed already.</p>}
          {diff.map((it) => (
            <Diff key={it.service} diff={it} />
          ))}
        </section>
        <section aria-labelledby="placement-title">
          <h2 id="placement-title">Placement</h2>
          <Placements plan={relevantPlan(review)} />
        </section>
      </div>
      <div class="actions end">
        <button type="button" class="button" onClick={startOver}>
          Edit
        </button>
        <button type="button" class="button" onClick={() => void dryRun(session, mayBeDeployed)}>
          Check again
        </button>
        <ActionButton
          role="deployer"
          subject={DEPLOY_ACTION}
          class="button primary"
          disabledReason={diff.length === 0 ? 'There are no changes to deploy.' : ''}
          onPress={() => void deploy(session, review)}
        >
          Deploy
        </ActionButton>
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
      <ChangeList lines={diff.changes} />
    </div>
  )
}
