import { expect, test } from 'vitest'
import type { ReplicaRow, VolumeRow } from 'vc-mesh'

import { replicaStatus, volumeProblems, volumeStatus } from '../src/model/volumes'
import { volumes } from './fixtures'

const [data, files, series] = volumes(1_800_000_000_000) as [VolumeRow, VolumeRow, VolumeRow]
const status = (row: VolumeRow, more: Partial<ReplicaRow> = {}) => {
  const [replica] = row.replicas as [ReplicaRow]
  return replicaStatus({ ...replica, ...more }, row.bytes)
}

test('a volume is as good as its worst copy', () => {
  expect(volumeStatus(data)).toEqual({ tone: 'good', label: 'ok' })
  expect(volumeStatus(files), 'its first copy is on its way').toEqual({ tone: 'busy', label: '1 of 2 copies' })
  expect(volumeStatus(series)).toEqual({ tone: 'bad', label: 'copy failing' })
  const [replica] = data.replicas as [ReplicaRow]
  const withReplica = (more: Partial<ReplicaRow>) => volumeStatus({ ...data, replicas: [{ ...replica, ...more }] })
  expect(withReplica({ lag_ms: 61_000 })).toEqual({ tone: 'warn', label: 'copy behind' })
  expect(withReplica({ state: 'down', lag_ms: 61_000 })).toEqual({ tone: 'warn', label: '1 of 2 copies' })
  expect(volumeStatus({ ...data, conflicts: 2 })).toEqual({ tone: 'warn', label: '2 conflicts' })
  expect(volumeStatus({ ...data, up: false }).label).toBe('primary down')
  expect(volumeStatus({ ...data, problem: 'rsync is missing' }).label).toBe('no snapshots')
  expect(volumeStatus({ ...data, snapshot: null, replicas: [] }), 'of a version without copies').toEqual({ tone: 'good', label: 'ok' })
})

test('a copy says how old it is and how far the first one is', () => {
  expect(status(data)).toEqual({ tone: 'good', label: '6s behind' })
  expect(status(data, { state: 'current', lag_ms: 0 })).toEqual({ tone: 'good', label: 'up to date' })
  expect(status(data, { lag_ms: 200_000 })).toEqual({ tone: 'warn', label: '3m behind' })
  expect(status(data, { state: 'down' }).label).toBe('down')
  expect(status(files)).toEqual({ tone: 'busy', label: 'copying 45 %, 921.6 MiB of 2 GiB' })
  expect(status(files, { received: 0 }).label).toBe('copying')
})

test('what is wrong names the node', () => {
  expect(volumeProblems(data)).toEqual([])
  expect(volumeProblems({ ...series, problem: 'rsync is missing' })).toEqual([
    'alpha: rsync is missing',
    'gamma: no space left on /var/lib/vc',
  ])
})
