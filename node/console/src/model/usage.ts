// What instances and nodes use, over the last minutes: the samples that this page has seen.

import { signal, type ReadonlySignal } from '@preact/signals'
import type { NodeRow, UsageRow } from 'vc-mesh'

/** Samples kept of each instance and node, at most: three minutes of instances. */
export const MAX_SAMPLES = 90

/** A measurement. */
export interface Sample {
  /** By the clock of the node that measured it, milliseconds since the epoch. */
  time: number
  /** Thousandths of a core. */
  cpu: number
  /** Bytes. */
  memory: number
}

/** The samples of instances, or of nodes, by key. Those of a key that is not reported any more are dropped. */
export class UsageHistory {
  readonly #samples = signal<ReadonlyMap<string, readonly Sample[]>>(new Map())

  /** Adds a report. A sample with the time of the last one is a repeat. */
  add(report: ReadonlyMap<string, Sample>): void {
    const before = this.#samples.peek()
    const next = new Map<string, readonly Sample[]>()
    for (const [key, sample] of report) {
      const known = before.get(key) ?? []
      const isNew = known.at(-1)?.time !== sample.time
      next.set(key, isNew ? [...known, sample].slice(-MAX_SAMPLES) : known)
    }
    this.#samples.value = next
  }

  /** The samples by key, oldest first. */
  get samples(): ReadonlySignal<ReadonlyMap<string, readonly Sample[]>> {
    return this.#samples
  }
}

/** Returns the key of an instance. */
export function instanceKey({ service, replica, node }: { service: string; replica: number; node: string | null }): string {
  return `${service}.${replica} ${node ?? ''}`
}

/** Returns the samples of instances in a report. */
export function instanceSamples(rows: readonly UsageRow[]): ReadonlyMap<string, Sample> {
  return new Map(rows.map((row) => [instanceKey(row), { time: row.measured, cpu: row.cpu_millis ?? 0, memory: row.memory_bytes }]))
}

/** Interval of the samples of nodes, whose rows are pushed as they change, in milliseconds. */
const NODE_INTERVAL = 2_000

/** Returns the samples of the nodes that are up. */
export function nodeSamples(rows: readonly NodeRow[], now: number): ReadonlyMap<string, Sample> {
  const time = now - (now % NODE_INTERVAL)
  const up = rows.filter((row) => row.state === 'up')
  return new Map(up.map((row) => [row.id, { time, cpu: row.cpu_used, memory: row.memory_used }]))
}

/** Returns the points of a line through values, for an SVG polyline of this size; `max` is at its top. */
export function linePoints(values: readonly number[], max: number, width: number, height: number): string {
  const step = width / (MAX_SAMPLES - 1)
  const start = width - step * (values.length - 1)
  const y = (value: number) => height - (max <= 0 ? 0 : Math.min(1, value / max)) * height
  return values.map((value, i) => `${(start + i * step).toFixed(1)},${y(value).toFixed(1)}`).join(' ')
}
