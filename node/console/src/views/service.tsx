import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import type { ServiceDetail, ServiceRow } from 'vc-mesh'

import { InstanceIcons } from '../components/instance-icons'
import { InstanceList } from '../components/instance-list'
import { RelativeTime } from '../components/relative-time'
import { RunList } from '../components/run-list'
import { Ports, RemoveButton, RestartButton, RollbackButton, Scale } from '../components/service-actions'
import { Spec } from '../components/spec'
import { StatusBadge } from '../components/status-badge'
import { useUsage } from '../components/usage-of'
import { errorMessage } from '../model/actions'
import { logsHref } from '../model/route'
import { call } from '../model/rpc'
import { isJob } from '../model/runs'
import { unavailableReason, useSession } from '../model/state'
import { serviceStatus } from '../model/status'
import { Image, RolloutLine, RunningCount } from './services'

export function Service({ service }: { service: string }) {
  const session = useSession()
  const usage = useUsage({ service, node: null })
  const row = session.services.value.find((it) => it.service === service)
  if (!row) {
    return (
      <>
        <h1>{service}</h1>
        <p class="empty">
          This service is not deployed. <a href="#/services">All services</a>
        </p>
      </>
    )
  }
  const instances = session.instances.value.filter((it) => it.service === service)
  return (
    <>
      <section class="headline">
        <h1>{service}</h1>
        <div class="service-line">
          <StatusBadge status={serviceStatus(row, instances)} />
          <span class="service-slots">
            <InstanceIcons instances={instances} />
            <RunningCount row={row} />
          </span>
          <Image reference={row.image} />
          <Ports row={row} />
        </div>
        <RolloutLine row={row} />
        {row.on_partition_effect && <p class="quiet">On a partition {row.on_partition_effect}</p>}
      </section>
      <div class="actions">
        <Scale row={row} />
        <a class="button" href={logsHref(service)}>
          Logs
        </a>
        <RestartButton row={row} />
        <RollbackButton row={row} />
        <RemoveButton row={row} />
      </div>
      {isJob(row.mode) ? (
        <section aria-labelledby="runs-title">
          <h2 id="runs-title">Runs</h2>
          <RunList row={row} />
        </section>
      ) : (
        <section aria-labelledby="instances-title">
          <h2 id="instances-title">Instances</h2>
          <InstanceList instances={instances} usage={usage} />
        </section>
      )}
      <Details row={row} />
    </>
  )
}

/** Shows the spec. It is requested again when the revision changes. */
function Details({ row }: { row: ServiceRow }) {
  const session = useSession()
  const detail = useSignal<ServiceDetail | null>(null)
  const problem = useSignal('')
  const showValues = useSignal(false)
  const hidden = unavailableReason(session, 'deployer')
  const isLive = session.isLive.value
  useEffect(() => {
    if (!isLive) return
    const abort = new AbortController()
    call(session, { op: 'inspect', service: row.service, show_values: showValues.value }, 'service', abort.signal).then(
      (value) => {
        detail.value = value
        problem.value = ''
      },
      (error: unknown) => {
        if (!abort.signal.aborted) problem.value = errorMessage(error)
      },
    )
    return () => abort.abort()
  }, [isLive, row.service, row.revision, row.rollout.state, showValues.value])
  return (
    <section aria-labelledby="spec-title">
      <h2 id="spec-title">Specification</h2>
      {problem.value && <p class="bad-text">{problem.value}</p>}
      {detail.value && (
        <>
          <p class="quiet">
            Deployed <RelativeTime time={detail.value.row.updated} /> by {detail.value.deployed_by}
          </p>
          {hidden ? (
            <p class="quiet">Values of environment variables are hidden. {hidden}</p>
          ) : (
            <label class="check">
              <input
                type="checkbox"
                checked={showValues.value}
                onChange={(event) => (showValues.value = event.currentTarget.checked)}
              />
              Show the values of environment variables
            </label>
          )}
          <Spec now={detail.value.spec} before={detail.value.previous} />
        </>
      )}
    </section>
  )
}
