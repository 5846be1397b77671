// The live log of a service: updates are batched per animation frame, and only visible lines are rendered.

import { signal, useSignal, type ReadonlySignal, type Signal } from '@preact/signals'
import { useEffect, useLayoutEffect, useMemo, useRef } from 'preact/hooks'

import { LogBuffer, type LogFilter, type LogLine, linesAsText, visibleRows } from '../model/log-buffer'
import { followLogs } from '../model/log-stream'
import { useSession } from '../model/state'
import { dateTime, timeOfDay } from '../model/units'

/** Height of a line, pixels. Must match `.line` in the style sheet. */
const LINE_HEIGHT = 20

interface LogPaneProps {
  service: string
  filter: ReadonlySignal<LogFilter>
}

/** The rendered lines. They are frozen while the user has scrolled up. */
class LogDisplay {
  readonly lines: Signal<LogLine[]> = signal([])
  readonly isFollowing = signal(true)
  /** Matching lines received since following stopped. */
  readonly newLines = signal(0)
  readonly #buffer: LogBuffer
  readonly #filter: ReadonlySignal<LogFilter>
  /** Number of the last rendered line. */
  #lastLine = 0
  /** Pending animation frame; 0 if none. */
  #frame = 0

  constructor(buffer: LogBuffer, filter: ReadonlySignal<LogFilter>) {
    this.#buffer = buffer
    this.#filter = filter
  }

  /** Schedules an update for the next animation frame. */
  scheduleUpdate(): void {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0
      if (this.isFollowing.value) this.refresh()
      else this.newLines.value = this.#buffer.lines(this.#filter.value, this.#lastLine).length
    })
  }

  refresh(): void {
    this.lines.value = this.#buffer.lines(this.#filter.value)
    this.#lastLine = this.#buffer.received
    this.newLines.value = 0
  }

  setFollowing(isFollowing: boolean): void {
    if (isFollowing === this.isFollowing.value) return
    this.isFollowing.value = isFollowing
    if (isFollowing) this.refresh()
  }

  stop(): void {
    cancelAnimationFrame(this.#frame)
  }
}

export function LogPane({ service, filter }: LogPaneProps) {
  const session = useSession()
  const [buffer, display] = useMemo(() => {
    const buffer = new LogBuffer()
    return [buffer, new LogDisplay(buffer, filter)] as const
  }, [filter])
  const note = useSignal('')
  const isLive = session.isLive.value
  useEffect(() => {
    if (!isLive) return
    const abort = new AbortController()
    const events = { line: () => display.scheduleUpdate(), note: (text: string) => (note.value = text) }
    void followLogs(session, service, buffer, events, abort.signal)
    return () => abort.abort()
  }, [isLive, service])
  useEffect(() => () => display.stop(), [display])
  useEffect(() => filter.subscribe(() => display.refresh()), [filter, display])
  return (
    <>
      <Lines display={display} service={service} />
      <div class="logs-foot quiet">
        <span>
          {display.lines.value.length}
          {filter.value.text || filter.value.replica || filter.value.onlyErrors ? ' matching' : ''} lines
          {note.value && ` · ${note.value}`}
        </span>
        <button type="button" class="plain" onClick={() => download(service, display.lines.value)}>
          Download
        </button>
        {display.isFollowing.value ? (
          <span>following</span>
        ) : (
          <button type="button" class="button small primary" onClick={() => display.setFollowing(true)}>
            Jump to end{display.newLines.value > 0 && ` (${display.newLines.value} new)`}
          </button>
        )}
      </div>
    </>
  )
}

/** Saves lines as a text file. */
function download(service: string, lines: readonly LogLine[]): void {
  const href = URL.createObjectURL(new Blob([linesAsText(lines)], { type: 'text/plain' }))
  const time = new Date().toISOString().slice(0, 19).replaceAll(':', '-')
  Object.assign(document.createElement('a'), { href, download: `${service.replace('/', '-')}-${time}.log` }).click()
  setTimeout(() => URL.revokeObjectURL(href), 60_000)
}

function Lines({ display, service }: { display: LogDisplay; service: string }) {
  const pane = useRef<HTMLDivElement>(null)
  const at = useSignal({ top: 0, height: 600 })
  const lines = display.lines.value
  const isFollowing = display.isFollowing.value
  const total = lines.length * LINE_HEIGHT
  const top = isFollowing ? Math.max(0, total - at.value.height) : at.value.top
  const { first, end } = visibleRows(top, at.value.height, LINE_HEIGHT, lines.length)

  useLayoutEffect(() => {
    const element = pane.current
    if (!element) return
    const observer = new ResizeObserver(() => (at.value = { ...at.value, height: element.clientHeight }))
    observer.observe(element)
    return () => observer.disconnect()
  }, [])
  useLayoutEffect(() => {
    const element = pane.current
    if (element && isFollowing) element.scrollTop = element.scrollHeight
  }, [lines, isFollowing, at.value.height])

  const onScroll = () => {
    const element = pane.current
    if (!element) return
    const distance = element.scrollHeight - element.scrollTop - element.clientHeight
    const isAtEnd = distance < 2 * LINE_HEIGHT
    if (!isAtEnd) at.value = { top: element.scrollTop, height: element.clientHeight }
    display.setFollowing(isAtEnd)
  }

  return (
    <div ref={pane} class="lines" role="region" aria-label={`Log of ${service}`} tabIndex={0} onScroll={onScroll}>
      {lines.length === 0 && <p class="empty">No lines.</p>}
      <div class="lines-all" style={{ height: `${total}px` }}>
        <div class="lines-rendered" style={{ transform: `translateY(${first * LINE_HEIGHT}px)` }}>
          {lines.slice(first, end).map((line) => (
            <div key={line.number} class={line.isError ? 'line err' : 'line'}>
              <span class="line-time" title={line.time === null ? undefined : dateTime(line.time)}>{line.time === null ? '' : timeOfDay(line.time)}</span>
              <span class="line-from">{line.replica}</span>
              {line.isError && <span class="line-err">err</span>}
              {line.lost && <span class="line-lost">{line.lost} lost here: they were read too slowly</span>}
              <span>{line.text}</span>
            </div>
          ))}
        </div>
      </div>
    </div>
  )
}
