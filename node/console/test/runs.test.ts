import { expect, test } from 'vitest'
import type { RunRow } from 'vc-mesh'

import { isJob, runDuration, runName, runStatus } from '../src/model/runs'
import { dateTime } from '../src/model/units'

const RUN: RunRow = {
  service: 'shop/backup',
  run: 1_767_225_600,
  state: 'failed',
  reason: 'exited with code 3',
  node: null,
  node_name: 'attic',
  started: 1_767_225_601_000,
  ended: 1_767_225_661_000,
  exit_code: 3,
  restarts: 0,
  missed: 0,
  by: '',
}

test('a run says how it ended, and how long it took', () => {
  expect(runStatus(RUN)).toEqual({ tone: 'bad', label: 'exit code 3' })
  expect(runStatus({ ...RUN, exit_code: null })).toEqual({ tone: 'bad', label: 'failed' })
  expect(runStatus({ ...RUN, state: 'succeeded', exit_code: 0 })).toEqual({ tone: 'good', label: 'succeeded' })
  expect(runStatus({ ...RUN, state: 'missed' })).toEqual({ tone: 'warn', label: 'missed' })
  expect(runStatus({ ...RUN, state: 'skipped' })).toEqual({ tone: 'idle', label: 'skipped' })
  expect(runDuration(RUN, 0)).toBe('60s')
  const underWay: RunRow = { ...RUN, state: 'running', ended: 0 }
  expect(runDuration(underWay, RUN.started + 30_000)).toBe('30s')
  expect(runDuration({ ...underWay, state: 'unknown' }, RUN.started + 30_000), 'its node is down').toBe('')
  expect(runDuration({ ...RUN, state: 'missed', started: 0, ended: 0 }, RUN.started)).toBe('')
})

test('runs of a schedule are named by their times', () => {
  expect(runName(RUN)).toBe(dateTime(1_767_225_600_000))
  expect(runName({ ...RUN, run: 16_000_000 }), 'of a node').toBe('Run 16000000')
  expect(['replicated', 'global', 'replicated-job', 'global-job', undefined].map(isJob)).toEqual([false, false, true, true, false])
})
