import type { StatusReport } from 'vc-mesh'

import { NodeList } from '../components/node-list'
import { StatusIcon } from '../components/status-badge'
import { TopologyGraph } from '../components/topology-graph'
import { Usage } from '../components/usage'
import { findProblems, type Problem } from '../model/problems'
import { useSession } from '../model/state'
import { bytes, cores, count } from '../model/units'

export function Overview() {
  const session = useSession()
  const status = session.status.value
  if (!status) return <p class="quiet">Waiting for data from the node…</p>
  const problems = findProblems(status, session.services.value, session.nodes.value)
  return (
    <>
      <section class="headline" aria-labelledby="headline">
        <h1 id="headline" aria-live="polite">
          {problems.length === 0 ? 'No problems' : count(problems.length, 'problem')}
        </h1>
        <p class="quiet">{summary(status)}</p>
      </section>
      {problems.length > 0 && <ProblemList problems={problems} />}
      <div class="glance">
        <section aria-labelledby="mesh-title">
          <h2 id="mesh-title">Topology</h2>
          <TopologyGraph />
          <p class="legend quiet">
            <span>
              <span class="swatch used" /> used
            </span>
            <span>
              <span class="swatch reserved" /> reserved
            </span>
            <span>left gauge: CPU, right gauge: memory</span>
          </p>
        </section>
        <section aria-labelledby="resources-title" class="resources">
          <h2 id="resources-title">Resources</h2>
          <Usage
            name="CPU"
            used={status.cpu_used}
            reserved={status.cpu_reserved}
            total={status.cpu_millis}
            format={cores}
            unit=" cores"
          />
          <Usage
            name="Memory"
            used={status.memory_used}
            reserved={status.memory_reserved}
            total={status.memory_bytes}
            format={bytes}
          />
          <dl class="facts">
            <Fact name="Nodes up" value={`${status.nodes_up}`} of={status.nodes} />
            {status.voters !== undefined && status.voters > 0 && (
              <Fact name="Voters reachable" value={`${status.voters_up ?? 0}`} of={status.voters} />
            )}
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

function ProblemList({ problems }: { problems: readonly Problem[] }) {
  return (
    <ul class="problems" aria-label="Problems">
      {problems.map(({ text, href }) => (
        <li key={text}>
          <StatusIcon tone="warn" />
          {href ? <a href={href}>{text}</a> : <span>{text}</span>}
        </li>
      ))}
    </ul>
  )
}
