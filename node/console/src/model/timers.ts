// Timers that run on time while the page is hidden, as it is behind the window of a service that was opened from it.

import type { Every } from 'vc-mesh'

import type { TimerCommand } from './timer-worker'

interface Timer {
  callback: () => void
  interval: number
  /** The timer of the page, where there is no worker. */
  inPage?: ReturnType<typeof setInterval>
}

const timers = new Map<number, Timer>()
let ids = 0
let worker: Worker | null = null
let hasFailed = false

/** Calls `callback` at an interval in milliseconds. Returns the function that stops this. */
export const every: Every = (callback, interval) => {
  const id = (ids += 1)
  timers.set(id, { callback, interval })
  run(id)
  return () => {
    clearInterval(timers.get(id)?.inPage)
    timers.delete(id)
    post({ id, interval: null })
  }
}

/** Runs a timer in the worker; in the page if that could not be loaded. */
function run(id: number): void {
  const timer = timers.get(id)
  if (!timer) return
  if (!hasFailed) return post({ id, interval: timer.interval })
  timer.inPage = setInterval(timer.callback, timer.interval)
}

function post(command: TimerCommand): void {
  worker ??= hasFailed ? null : startWorker()
  worker?.postMessage(command)
}

function startWorker(): Worker {
  const started = new Worker(new URL('./timer-worker.ts', import.meta.url), { type: 'module' })
  started.addEventListener('message', ({ data }: MessageEvent<number>) => timers.get(data)?.callback())
  started.addEventListener('error', () => {
    hasFailed = true
    worker = null
    for (const id of timers.keys()) run(id)
  })
  return started
}
