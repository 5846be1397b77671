import type { StatusReport } from 'vc-mesh'

import { concerns, type Concern } from '../concerns'
import { NodeList } from '../parts/node-list'
import { Shaped } from '../parts/mark'
import { MeshPicture } from '../parts/mesh-picture'
import { Meter } from '../parts/meter'
import { useSession } from '../state'
import { bytes, cores, count } from '../units'

export function Overview() {
  const session = useSession()
  const status = session.status.value
  if (!status) return <p class="quiet">Waiting for the first word of the node …</p>
  const found = concerns(status, session.services.value, session.nodes.value)
  return (
    <>
      <section class="headline" aria-labelledby="headline">
        <h1 id="headline" aria-live="polite">
          {found.length === 0 ? 'All is well' : `${count(found.length, 'thing')} to look at`}
        </h1>
        <p class="quiet">{summary(status)}</p>
      </section>
      {found.length > 0 && <Concerns found={found} />}
      <div class="glance">
        <section aria-labelledby="mesh-title">
          <h2 id="mesh-title">Mesh</h2>
          <MeshPicture />
          <p class="legend quiet">
            <span>
              <span class="swatch used" /> used
            </span>
            <span>
              <span class="swatch reserved" /> reserved
            </span>
            <span>left tank CPU, right tank memory</span>
          </p>
        </section>
        <section aria-labelledby="pool-title" class="pool">
          <h2 id="pool-title">Pool</h2>
          <Meter
            name="CPU"
            used={status.cpu_used}
            reserved={status.cpu_reserved}
            total={status.cpu_millis}
            write={cores}
            unit=" cores"
          />
          <Meter
            name="Memory"
            used={status.memory_used}
            reserved={status.memory_reserved}
            total={status.memory_bytes}
            write={bytes}
          />
          <dl class="facts">
            <Fact name="Nodes up" value={`${status.nodes_up}`} of={status.nodes} />
            <Fact name="Services" value={`${status.services}`} />
            <Fact name="Instances running" value={`${status.running}`} of={status.replicas} />
          </dl>
        </section>
      </div>
      <section aria-labelledby="nodes-title">
        <h2 id="nodes-title">Nodes</h2>
        <NodeList />
      </section>
    </>
  )
}

function Fact({ name, value, of }: { name: string; value: string; of?: number }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>
        {value}
        {of !== undefined && <span class="quiet"> of {of}</span>}
      </dd>
    </div>
  )
}

function summary(status: StatusReport): string {
  return (
    `${status.nodes_up} of ${count(status.nodes, 'node')} up, ` +
    `${status.running} of ${count(status.replicas, 'instance')} running in ${count(status.services, 'service')}`
  )
}

function Concerns({ found }: { found: readonly Concern[] }) {
  return (
    <ul class="concerns" aria-label="To look at">
      {found.map(({ text, href }) => (
        <li key={text}>
          <Shaped tone="warn" />
          {href ? <a href={href}>{text}</a> : <span>{text}</span>}
        </li>
      ))}
    </ul>
  )
}
