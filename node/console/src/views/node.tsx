// A node: what it is, what it has, and what it runs.

import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import type { ImageRow, NodeRow, VolumeRow } from 'vc-mesh'

import { InstanceList } from '../components/instance-list'
import { DrainButton } from '../components/node-list'
import { Sparkline } from '../components/sparkline'
import { StatusBadge } from '../components/status-badge'
import { Usage } from '../components/usage'
import { useUsage } from '../components/usage-of'
import { errorMessage } from '../model/actions'
import { call } from '../model/rpc'
import { now, nodeName, useSession } from '../model/state'
import { nodeStatus } from '../model/status'
import { bytes, cores, count, duration, relativeTime } from '../model/units'

export function Node({ node }: { node: string }) {
  const session = useSession()
  const row = session.nodes.value.find((it) => it.id === node || it.name === node)
  if (!row) {
    return (
      <>
        <h1>{node}</h1>
        <p class="empty">
          The cluster has no such node. <a href="#/">All nodes</a>
        </p>
      </>
    )
  }
  return (
    <>
      <section class="headline">
        <h1>{row.name}</h1>
        <div class="service-line">
          <StatusBadge status={nodeStatus(row, session.nodes.value)} />
          {session.attached.value?.node === row.id && <span class="tag">attached</span>}
          {row.votes && <span class="tag">voter</span>}
          <span class="quiet">{[row.role, row.runtime, row.platform].filter(Boolean).join(' · ')}</span>
        </div>
        {row.problem && <p class="bad-text">{row.problem}</p>}
      </section>
      {row.state !== 'left' && (
        <>
          <div class="actions">
            <DrainButton row={row} />
          </div>
          <Resources row={row} />
          <Instances row={row} />
          <Stored row={row} />
        </>
      )}
      <Facts row={row} />
    </>
  )
}

function Resources({ row }: { row: NodeRow }) {
  const samples = useSession().nodeUsage.value.get(row.id) ?? []
  return (
    <section aria-labelledby="resources-title">
      <h2 id="resources-title">Resources</h2>
      <div class="node-resources">
        <div>
          <Usage name="CPU" used={row.cpu_used} reserved={row.cpu_reserved} total={row.cpu_millis} format={cores} unit=" cores" />
          <Sparkline
            name={`CPU of ${row.name}`}
            values={samples.map((it) => it.cpu)}
            max={row.cpu_millis}
            format={(millis) => `${cores(millis)} cores`}
          />
        </div>
        <div>
          <Usage name="Memory" used={row.memory_used} reserved={row.memory_reserved} total={row.memory_bytes} format={bytes} />
          <Sparkline name={`Memory of ${row.name}`} values={samples.map((it) => it.memory)} max={row.memory_bytes} format={bytes} />
        </div>
        <div>
          <Usage name="Disk" used={row.disk_used} reserved={null} total={row.disk_bytes} format={bytes} />
        </div>
      </div>
    </section>
  )
}

function Instances({ row }: { row: NodeRow }) {
  const session = useSession()
  const usage = useUsage({ service: null, node: row.id })
  const instances = session.instances.value.filter((it) => it.node === row.id)
  const sorted = instances.toSorted((a, b) => a.service.localeCompare(b.service) || a.replica - b.replica)
  return (
    <section aria-labelledby="instances-title">
      <h2 id="instances-title">Instances</h2>
      <InstanceList instances={sorted} usage={usage} />
    </section>
  )
}

/** Shows the volumes and images on a node. They are not pushed: they are requested every time that the clock advances. */
function Stored({ row }: { row: NodeRow }) {
  const session = useSession()
  const stored = useSignal<{ volumes: VolumeRow[]; images: ImageRow[] } | null>(null)
  const problem = useSignal('')
  useEffect(() => {
    if (!session.isLive.value) return
    const abort = new AbortController()
    const { signal } = abort
    Promise.all([call(session, { op: 'volumes' }, 'volumes', signal), call(session, { op: 'images' }, 'images', signal)]).then(
      ([volumes, images]) => {
        stored.value = { volumes, images }
        problem.value = ''
      },
      (error: unknown) => {
        if (!signal.aborted) problem.value = errorMessage(error)
      },
    )
    return () => abort.abort()
  }, [now.value, session.isLive.value])
  if (problem.value) return <p class="bad-text">{problem.value}</p>
  if (!stored.value) return null
  const volumes = stored.value.volumes.filter((it) => it.node === row.id || it.replicas.some((copy) => copy.node === row.id))
  const images = stored.value.images.filter((it) => it.nodes.includes(row.name) || it.nodes.includes(row.id))
  return (
    <>
      <section aria-labelledby="volumes-title">
        <h2 id="volumes-title">Volumes</h2>
        {volumes.length === 0 && <p class="empty">No copy of a volume.</p>}
        <ul class="plain-list">
          {volumes.map((it) => (
            <li key={it.volume}>
              <a href="#/volumes">{it.volume}</a> <span class="quiet">{it.node === row.id ? 'primary' : 'replica'}, {bytes(it.bytes)}</span>
            </li>
          ))}
        </ul>
      </section>
      <section aria-labelledby="images-title">
        <h2 id="images-title">Images</h2>
        {images.length === 0 && <p class="empty">No image that was pushed to the cluster.</p>}
        <ul class="plain-list">
          {images.map((it) => (
            <li key={`${it.reference} ${it.id}`}>
              {it.reference} <span class="quiet">{bytes(it.size)}{it.services.length > 0 && `, ${count(it.services.length, 'service')}`}</span>
            </li>
          ))}
        </ul>
      </section>
    </>
  )
}

function Facts({ row }: { row: NodeRow }) {
  const session = useSession()
  const labels = Object.entries(row.labels).map(([key, value]) => `${key}=${value}`)
  return (
    <section aria-labelledby="facts-title">
      <h2 id="facts-title">Facts</h2>
      <dl class="node-facts">
        <Fact name="Id" value={row.id} />
        <Fact name="Version" value={row.version} />
        <Fact name="Clock" value={clock(row.clock_offset_ms)} />
        <Fact name="Labels" value={labels.join(', ')} />
        <Fact name="Resources" value={Object.entries(row.generic_resources ?? {}).map(([kind, n]) => `${kind}=${n}`).join(', ')} />
        <Fact name="Cannot reach" value={row.unreachable.map((id) => nodeName(session.nodes.value, id)).join(', ')} />
        {row.state === 'down' && row.down_since !== undefined && <Fact name="Down" value={relativeTime(now.value, row.down_since)} />}
        <Fact name="Addresses" value={row.addresses.join('\n')} />
      </dl>
    </section>
  )
}

/** Shows a fact; nothing without a value. */
function Fact({ name, value }: { name: string; value: string }) {
  if (value === '') return null
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  )
}

/** Tells how far a clock is from that of the attached node. */
function clock(offset: number): string {
  if (offset === 0) return 'within 2 s of the attached node'
  return `${duration(Math.abs(offset))} ${offset > 0 ? 'ahead of' : 'behind'} the attached node`
}
