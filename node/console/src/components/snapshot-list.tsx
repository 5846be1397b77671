// The snapshots of a volume on its primary, and what is kept aside there.

import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import type { SnapshotRow, VolumeRow } from 'vc-mesh'

import { errorMessage, perform } from '../model/actions'
import { call } from '../model/rpc'
import { type Session, useSession } from '../model/state'
import { bytes, count, dateTime } from '../model/units'
import { snapshotId } from '../model/volumes'
import { ActionButton } from './action-button'
import { confirm } from './confirm'
import { RelativeTime } from './relative-time'

/** Snapshots shown, at most. */
const MAX_SHOWN = 50

/** Lists the snapshots, newest first. They are requested when it appears, and when the volume gets another one. */
export function SnapshotList({ volume }: { volume: VolumeRow }) {
  const session = useSession()
  const rows = useSignal<SnapshotRow[] | null>(null)
  const problem = useSignal('')
  useEffect(() => {
    const abort = new AbortController()
    call(session, { op: 'snapshots', volume: volume.volume, node: volume.node }, 'snapshots', abort.signal).then(
      (value) => {
        rows.value = value.toSorted((a, b) => b.time - a.time).slice(0, MAX_SHOWN)
        problem.value = ''
      },
      (error: unknown) => {
        if (!abort.signal.aborted) problem.value = errorMessage(error)
      },
    )
    return () => abort.abort()
  }, [volume.volume, volume.node, volume.snapshot])
  return (
    <div class="snapshots">
      <ActionButton
        role="deployer"
        subject={`volume ${volume.volume}`}
        class="button small"
        label={`Take a snapshot of ${volume.volume}`}
        onPress={() => void perform(session, `volume ${volume.volume}`, { op: 'snapshot_volume', volume: volume.volume })}
      >
        Take a snapshot
      </ActionButton>
      {problem.value && <p class="bad-text">{problem.value}</p>}
      {rows.value?.length === 0 && <p class="quiet">No snapshots.</p>}
      <ul class="plain-list">
        {rows.value?.map((row) => (
          <Snapshot key={`${row.kind} ${row.snapshot}`} row={row} />
        ))}
      </ul>
    </div>
  )
}

function Snapshot({ row }: { row: SnapshotRow }) {
  const session = useSession()
  const id = snapshotId(row.snapshot)
  return (
    <li>
      <span title={dateTime(row.time)}>
        <RelativeTime time={row.time} />
      </span>{' '}
      <span class="quiet">
        {row.snapshot}, {count(row.files, 'file')}, {bytes(row.bytes)}
        {row.kind === 'conflict' && ', kept aside as a conflict'}
        {row.kind === 'removed' && ', in the trash'}
      </span>{' '}
      {id && row.kind !== 'removed' && (
        <ActionButton
          role="deployer"
          subject={`volume ${row.volume}`}
          class="button small"
          label={`Restore ${row.volume} to ${row.snapshot}`}
          onPress={() => confirmRestore(session, row, id)}
        >
          Restore
        </ActionButton>
      )}
    </li>
  )
}

function confirmRestore(session: Session, row: SnapshotRow, snapshot: { epoch: number; number: number }): void {
  confirm({
    title: `Restore ${row.volume}?`,
    body: (
      <p>
        The volume becomes as it was on {dateTime(row.time)}. No instance may use it meanwhile: scale its services to 0 first. Its
        present content becomes a snapshot.
      </p>
    ),
    verb: 'Restore',
    isDangerous: true,
    onConfirm: () =>
      void perform(session, `volume ${row.volume}`, {
        op: 'restore_volume',
        volume: row.volume,
        snapshot,
        ...(row.kind === 'conflict' ? { conflict: true } : {}),
      }),
  })
}
