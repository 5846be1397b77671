import { useComputed } from '@preact/signals'

import { startOver } from '../deployment'
import { standing, type Wanted } from '../rollout'
import { serviceHref } from '../route'
import { useSession } from '../state'
import { InstanceList } from './instance-list'
import { Mark } from './mark'
import type { Condition } from '../services'

/** A deployment until it has settled or failed, as the nodes push it. */
export function DeployFollow({ lines, wanted }: { lines: readonly string[]; wanted: readonly Wanted[] }) {
  const session = useSession()
  const now = useComputed(() => standing(wanted, session.services.value, session.instances.value))
  const { running, wanted: total, verdict } = now.value
  const condition: Condition =
    verdict.state === 'settled'
      ? { tone: 'good', word: 'Settled' }
      : verdict.state === 'failed'
        ? { tone: 'bad', word: 'Failed' }
        : { tone: 'busy', word: 'Rolling out' }
  return (
    <>
      <div role="status" class="verdict">
        <Mark condition={condition} />
        <span>
          {running} of {total} run and are proven
        </span>
        {verdict.state === 'failed' && <span class="bad-text">{verdict.reason}</span>}
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
