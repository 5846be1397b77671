import type { InstanceRow, ServiceRow } from 'vc-mesh'

import { InstanceIcons } from '../components/instance-icons'
import { Ports, RestartButton, RollbackButton, Scale } from '../components/service-actions'
import { StatusBadge } from '../components/status-badge'
import { logsHref, serviceHref } from '../model/route'
import { byProject, nameOf } from '../model/services'
import { useSession } from '../model/state'
import { serviceStatus } from '../model/status'
import { count } from '../model/units'

export function Services() {
  const session = useSession()
  const projects = byProject(session.services.value)
  return (
    <>
      <h1>Services</h1>
      {projects.length === 0 && (
        <p class="empty">
          No services are deployed. <a href="#/deploy">Deploy a Compose file</a>, or drop one anywhere on this page.
        </p>
      )}
      {projects.map((project) => (
        <section key={project.name} aria-labelledby={`project-${project.name}`}>
          <h2 id={`project-${project.name}`}>
            {project.name} <span class="quiet">{count(project.services.length, 'service')}</span>
          </h2>
          <ul class="rows services">
            {project.services.map((row) => (
              <Service key={row.service} row={row} instances={session.instances.value} />
            ))}
          </ul>
        </section>
      ))}
    </>
  )
}

function Service({ row, instances }: { row: ServiceRow; instances: readonly InstanceRow[] }) {
  const own = instances.filter((it) => it.service === row.service)
  return (
    <li class="row">
      <div class="service-name">
        <h3>
          <a href={serviceHref(row.service)}>{nameOf(row.service)}</a>
        </h3>
        <StatusBadge status={serviceStatus(row, own)} />
      </div>
      <div class="service-slots">
        <InstanceIcons instances={own} />
        <RunningCount row={row} />
      </div>
      <Image reference={row.image} />
      <Ports row={row} />
      <div class="actions">
        <Scale row={row} />
        <a class="button" href={logsHref(row.service)} aria-label={`Logs of ${row.service}`}>
          Logs
        </a>
        <RestartButton row={row} />
        <RollbackButton row={row} />
      </div>
      <RolloutLine row={row} />
    </li>
  )
}

/** Shows `3 of 3`, or `2 healthy, 3 running of 3` if some running instances are not healthy. */
export function RunningCount({ row }: { row: ServiceRow }) {
  const isMixed = row.running > row.healthy
  return (
    <span>
      {isMixed ? `${row.healthy} healthy, ${row.running} running` : row.running}
      <span class="quiet"> of {row.replicas}</span>
    </span>
  )
}

/** Shows an image reference, truncated before its tag or digest when space is short. */
export function Image({ reference }: { reference: string }) {
  const end = /[:@][^:@/]*$/.exec(reference)?.index ?? reference.length
  return (
    <span class="image" title={reference}>
      <span>{reference.slice(0, end)}</span>
      <span>{reference.slice(end)}</span>
    </span>
  )
}

/** Shows the progress or failure of the last update; nothing once it is complete. */
export function RolloutLine({ row }: { row: ServiceRow }) {
  const { state, done, reason, image } = row.rollout
  switch (state) {
    case 'complete':
      return null
    case 'updating':
      return (
        <p class="rollout">
          Updating: {done} of {row.replicas} done{reason && `; ${reason}`}
        </p>
      )
    case 'paused':
      return <p class="rollout bad-text">The update is paused: {reason}</p>
    case 'rolled_back':
      return (
        <p class="rollout warn-text">
          The update{image && image !== row.image && ` to ${image}`} was rolled back: {reason}
        </p>
      )
  }
}
