import { startOver } from '../model/deployment'
import type { RolloutProgress } from '../model/rollout'
import type { RolloutWatch } from '../model/rollout-watch'
import { serviceHref } from '../model/route'
import { useSession } from '../model/state'
import type { Status } from '../model/status'
import { InstanceList } from './instance-list'
import { StatusBadge } from './status-badge'

const STATUSES: Record<RolloutProgress['result']['state'], Status> = {
  waiting: { tone: 'busy', label: 'Rolling out' },
  available: { tone: 'good', label: 'Available' },
  failed: { tone: 'bad', label: 'Failed' },
  ended: { tone: 'warn', label: 'Ended' },
}

/** Shows the rollout of a deployment until all instances are available or it failed. */
export function DeployProgress({ lines, rollout }: { lines: readonly string[]; rollout: RolloutWatch }) {
  const session = useSession()
  const { available, desired, result } = rollout.progress.value
  return (
    <>
      <div role="status" class="rollout-status">
        <StatusBadge status={STATUSES[result.state]} />
        {result.state !== 'ended' && (
          <span>
            {available} of {desired} available
          </span>
        )}
        {'reason' in result && <span class="bad-text">{result.reason}</span>}
      </div>
      <ul class="changes">
        {lines.map((line) => (
          <li key={line}>{line}</li>
        ))}
      </ul>
      {rollout.targets.map(({ service }) => (
        <section key={service} aria-label={service}>
          <h2>
            <a href={serviceHref(service)}>{service}</a>
          </h2>
          <InstanceList instances={session.instances.value.filter((it) => it.service === service)} />
        </section>
      ))}
      <div class="actions end">
        <button type="button" class="button" onClick={startOver}>
          New deployment
        </button>
      </div>
    </>
  )
}
