import { startOver } from '../deployment'
import type { Following } from '../following'
import type { Standing } from '../rollout'
import { serviceHref } from '../route'
import type { Condition } from '../services'
import { useSession } from '../state'
import { InstanceList } from './instance-list'
import { Mark } from './mark'

const CONDITIONS: Record<Standing['verdict']['state'], Condition> = {
  waiting: { tone: 'busy', word: 'Rolling out' },
  settled: { tone: 'good', word: 'Settled' },
  failed: { tone: 'bad', word: 'Failed' },
  over: { tone: 'warn', word: 'Over' },
}

/** A deployment until it has settled or failed, as the nodes push it. */
export function DeployFollow({ lines, following }: { lines: readonly string[]; following: Following }) {
  const session = useSession()
  const { wanted } = following
  const { running, wanted: total, verdict } = following.standing.value
  return (
    <>
      <div role="status" class="verdict">
        <Mark condition={CONDITIONS[verdict.state]} />
        {verdict.state !== 'over' && (
          <span>
            {running} of {total} run and are proven
          </span>
        )}
        {'reason' in verdict && <span class="bad-text">{verdict.reason}</span>}
      </div>
      <ul class="changes">
        {lines.map((line) => (
          <li key={line}>{line}</li>
        ))}
      </ul>
      {wanted.map(({ service }) => (
        <section key={service} aria-label={service}>
          <h2>
            <a href={serviceHref(service)}>{service}</a>
          </h2>
          <InstanceList instances={session.instances.value.filter((it) => it.service === service)} />
        </section>
      ))}
      <div class="actions end">
        <button type="button" class="button" onClick={startOver}>
          Deploy something else
        </button>
      </div>
    </>
  )
}
