import { signal } from '@preact/signals'
import { afterEach, expect, test } from 'vitest'
import type { Mesh, Reply } from 'vc-mesh'

import { LogBuffer } from '../src/model/log-buffer'
import { followLogs } from '../src/model/log-stream'
import type { Session } from '../src/model/state'
import { clusterView, ID } from './fixtures'

const { nodes, services: rows } = clusterView(0)
const [template] = rows
if (!template) throw new Error('no services in the fixture')
const { service } = template

const line = (text: string, node: string): Reply => ({
  reply: 'log',
  value: { service, replica: 1, node, time: null, stream: 'stdout', line: text },
})
const note = (value: string): Reply => ({ reply: 'note', value })

let abort: AbortController
afterEach(() => abort.abort())

/** Follows a log. Each request replies with the next of `streams`, and then with empty ones. */
function followed(...streams: Reply[][]) {
  abort = new AbortController()
  const notes: string[] = []
  const buffer = new LogBuffer()
  const services = signal(rows)
  const mesh = {
    async *stream() {
      yield* streams.shift() ?? []
    },
  }
  const session = { nodes: signal(nodes), services, mesh: mesh as unknown as Mesh } as unknown as Session
  const events = { line: () => notes.push('line'), note: (text: string) => notes.push(text) }
  const done = followLogs(session, service, buffer, events, abort.signal)
  const texts = () => buffer.lines({ replica: null, text: '', onlyErrors: false }).map(({ text }) => text)
  return { notes, services, texts, done }
}

test('a log that ended with its service starts again when the service is deployed again', async () => {
  const { notes, services, texts } = followed([line('old', ID.alpha)], [line('new', ID.alpha)])
  await expect.poll(() => notes.at(-1)).toBe('The log has ended.')
  services.value = []
  expect(notes.at(-1)).toBe('The log has ended.')
  services.value = rows
  await expect.poll(texts).toEqual(['old', 'new'])
})

test('the last lines of a removed service are received', async () => {
  const { services, texts, notes } = followed([line('running', ID.alpha), line('stopping', ID.alpha), line('stopped', ID.alpha)], [])
  services.value = []
  await expect.poll(() => notes.at(-1)).toBe('The log has ended.')
  expect(texts()).toEqual(['running', 'stopping', 'stopped'])
})

test('the note that the logs of a node ended disappears when they resume', async () => {
  const ended = 'logs from beta ended: the node is down'
  const { notes } = followed([note(ended), line('a', ID.alpha), line('b', ID.beta), line('c', ID.beta)])
  await expect.poll(() => notes.at(-1)).toBe('The log has ended.')
  expect(notes).toEqual(['', ended, 'line', 'line', '', 'line', 'The log has ended.'])
})

test('an aborted log sends no more requests', async () => {
  const { notes, services, texts, done } = followed([], [line('new', ID.alpha)])
  await expect.poll(() => notes.at(-1)).toBe('The log has ended.')
  abort.abort()
  await done
  services.value = []
  services.value = rows
  expect(texts()).toEqual([])
})
