import type { InstanceRow, ServiceRow } from 'vc-mesh'

import { Mark } from '../parts/mark'
import { Ports, RestartButton, RollbackButton, Scale } from '../parts/service-actions'
import { Slots } from '../parts/slots'
import { logsHref, serviceHref } from '../route'
import { byProject, nameOf, serviceCondition } from '../services'
import { useSession } from '../state'
import { count } from '../units'

export function Services() {
  const session = useSession()
  const projects = byProject(session.services.value)
  return (
    <>
      <h1>Services</h1>
      {projects.length === 0 && (
        <p class="empty">
          Nothing is deployed yet. <a href="#/deploy">Deploy a Compose file</a>, or drop one anywhere on this page.
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
        <Mark condition={serviceCondition(row, own)} />
      </div>
      <div class="service-slots">
        <Slots instances={own} />
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

/** `3 of 3`; where some run and are not healthy, both are told. */
export function RunningCount({ row }: { row: ServiceRow }) {
  const isMixed = row.running > row.healthy
  return (
    <span>
      {isMixed ? `${row.healthy} healthy, ${row.running} running` : row.running}
      <span class="quiet"> of {row.replicas}</span>
    </span>
  )
}

/** An image's reference. Its tag or digest stays in sight when there is little room. */
export function Image({ reference }: { reference: string }) {
  const end = /[:@][^:@/]*$/.exec(reference)?.index ?? reference.length
  return (
    <span class="image" title={reference}>
      <span>{reference.slice(0, end)}</span>
      <span>{reference.slice(end)}</span>
    </span>
  )
}

/** How its last update goes, where there is something to say. */
export function RolloutLine({ row }: { row: ServiceRow }) {
  const { state, done, reason } = row.rollout
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
      return <p class="rollout warn-text">The update was rolled back: {reason}</p>
  }
}
