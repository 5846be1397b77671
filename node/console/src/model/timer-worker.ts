// Counts time for the page: browsers slow the timers of a hidden page down, not those of its workers.

/** Starts a timer at an interval in milliseconds, or stops it without one. Each tick is posted as the id. */
export interface TimerCommand {
  id: number
  interval: number | null
}

const timers = new Map<number, ReturnType<typeof setInterval>>()

addEventListener('message', ({ data: { id, interval } }: MessageEvent<TimerCommand>) => {
  clearInterval(timers.get(id))
  if (interval === null) timers.delete(id)
  else timers.set(id, setInterval(() => postMessage(id), interval))
})
