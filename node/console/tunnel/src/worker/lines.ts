/// <reference lib="webworker" />
/** The service worker's lines to the console. It is stopped and started as the browser likes; pages keep lines for it. */
import { Line } from '../line'
import type { App, WorkerTold } from '../protocol'

declare const self: ServiceWorkerGlobalScope

/** A page answers in so long, milliseconds, if it has a line. */
const PAGE_TIMEOUT = 1_500
/** Consoles that may show one app at once. */
const MAX_LINES = 8

/** Newest last. */
const lines: Line[] = []
let asking: Promise<void> | null = null
let onLine: (() => void) | null = null

/** A line on which the console is; `null`: neither this worker nor a page has one. */
export async function findLine(): Promise<Line | null> {
  const held = await firstAlive()
  if (held) return held
  asking ??= askPages().finally(() => {
    asking = null
  })
  await asking
  return firstAlive()
}

/** Takes a line. When it is fresh, every page gets one as well: those they have may be of a console that is gone. */
export async function takeLine(port: MessagePort, app: App, fresh: boolean): Promise<void> {
  const line = new Line(port, app, (closed) => {
    lines.splice(lines.indexOf(closed), 1)
  })
  lines.push(line)
  if (lines.length > MAX_LINES) lines[0]?.close()
  onLine?.()
  if (fresh) for (const page of await pages()) giveLine(page, line)
}

/** Gives a page a line of its own. */
export function giveLine(page: Client, line: Line): void {
  const port = line.fork()
  page.postMessage({ worker: 'line', app: line.app } satisfies WorkerTold, [port])
}

export async function pages(): Promise<readonly Client[]> {
  return self.clients.matchAll({ type: 'window', includeUncontrolled: true })
}

async function firstAlive(): Promise<Line | null> {
  for (const line of [...lines].reverse()) {
    if (await line.alive()) return line
  }
  return null
}

async function askPages(): Promise<void> {
  const all = await pages()
  if (all.length === 0) return
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, PAGE_TIMEOUT)
    onLine = () => {
      clearTimeout(timer)
      resolve()
    }
    for (const page of all) page.postMessage({ worker: 'want-line' } satisfies WorkerTold)
  })
  onLine = null
}
