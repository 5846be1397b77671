import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import type { ReplicaRow, VolumeRow } from 'vc-mesh'

import { SnapshotList } from '../components/snapshot-list'
import { StatusBadge } from '../components/status-badge'
import { errorMessage } from '../model/actions'
import { serviceHref } from '../model/route'
import { call } from '../model/rpc'
import { nameOf } from '../model/services'
import { now, useSession } from '../model/state'
import { bytes, count } from '../model/units'
import { replicaStatus, volumeProblems, volumeStatus } from '../model/volumes'

/** Shows the volumes with their copies. They are not pushed: they are requested every time that the clock advances. */
export function Volumes() {
  const session = useSession()
  const volumes = useSignal<VolumeRow[] | null>(null)
  const problem = useSignal('')
  useEffect(() => {
    if (!session.isLive.value) return
    const abort = new AbortController()
    call(session, { op: 'volumes' }, 'volumes', abort.signal).then(
      (rows) => {
        volumes.value = rows.toSorted((a, b) => a.volume.localeCompare(b.volume))
        problem.value = ''
      },
      (error: unknown) => {
        if (!abort.signal.aborted) problem.value = errorMessage(error)
      },
    )
    return () => abort.abort()
  }, [now.value, session.isLive.value])
  const rows = volumes.value
  return (
    <>
      <div class="view-bar">
        <h1>Volumes</h1>
        {rows && <p class="quiet">{count(rows.length, 'volume')}</p>}
      </div>
      {problem.value && <p class="bad-text">{problem.value}</p>}
      {rows === null && !problem.value && <p class="quiet">Loading the volumes…</p>}
      {rows?.length === 0 && <p class="empty">No service has a named volume.</p>}
      <ul class="rows volumes">
        {rows?.map((row) => (
          <Volume key={row.volume} row={row} />
        ))}
      </ul>
    </>
  )
}

function Volume({ row }: { row: VolumeRow }) {
  const isOpen = useSignal(false)
  return (
    <li class="row">
      <div class="volume-name">
        <h2>{row.volume}</h2>
        <StatusBadge status={volumeStatus(row)} />
      </div>
      <div>
        <span class="quiet">Used by</span>{' '}
        {row.services.length === 0 && 'no service'}
        {row.services.map((service, index) => (
          <span key={service}>
            {index > 0 && ', '}
            <a href={serviceHref(service)}>{nameOf(service)}</a>
          </span>
        ))}
      </div>
      <div>
        <span class="quiet">Primary</span> {row.primary}
      </div>
      <div>
        <span class="quiet">Size</span> {row.snapshot === null ? '–' : bytes(row.bytes)}
      </div>
      <ul class="volume-copies" aria-label={`Replicas of ${row.volume}`}>
        {row.replicas.map((replica) => (
          <Replica key={replica.node} row={replica} total={row.bytes} />
        ))}
        {row.replicas.length === 0 && <li class="quiet">no replica</li>}
      </ul>
      <Warnings row={row} />
      <details class="volume-snapshots" onToggle={(event) => (isOpen.value = event.currentTarget.open)}>
        <summary>Snapshots</summary>
        {isOpen.value && <SnapshotList volume={row} />}
      </details>
    </li>
  )
}

function Replica({ row, total }: { row: ReplicaRow; total: number }) {
  return (
    <li title={row.snapshot ? `snapshot ${row.snapshot}` : undefined}>
      {row.node_name} <StatusBadge status={replicaStatus(row, total)} />
    </li>
  )
}

/** Shows what is wrong, and what to do about conflicts; nothing otherwise. */
function Warnings({ row }: { row: VolumeRow }) {
  const problems = volumeProblems(row)
  if (problems.length === 0 && row.conflicts === 0) return null
  return (
    <div class="volume-warnings">
      {problems.map((text) => (
        <p key={text} class="bad-text">
          {text}
        </p>
      ))}
      {row.conflicts > 0 && (
        <p class="warn-text">
          {count(row.conflicts, 'conflict')}: what a lost node wrote last is kept aside for 7 days; see{' '}
          <code>vc volume conflicts {row.volume}</code>
        </p>
      )}
    </div>
  )
}
