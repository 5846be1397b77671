// The lines of a service as they come: at most a frame's worth of work a frame, and only what is in sight in the page.

import { signal, useSignal, type ReadonlySignal, type Signal } from '@preact/signals'
import { useEffect, useLayoutEffect, useMemo, useRef } from 'preact/hooks'

import { LogBuffer, windowOf, type LogFilter, type LogLine } from '../log-buffer'
import { followLogs } from '../log-stream'
import { useSession } from '../state'
import { clock } from '../units'

/** As in the style sheet. Pixels. */
const LINE_HEIGHT = 20

interface LogPaneProps {
  service: string
  filter: ReadonlySignal<LogFilter>
}

/** What is drawn. While the user reads further up it does not change. */
class Shown {
  readonly lines: Signal<LogLine[]> = signal([])
  readonly isFollowing = signal(true)
  /** Lines that fit and came since it stopped following. */
  readonly fresh = signal(0)
  readonly #buffer: LogBuffer
  readonly #filter: ReadonlySignal<LogFilter>
  #at = 0
  #frame = 0

  constructor(buffer: LogBuffer, filter: ReadonlySignal<LogFilter>) {
    this.#buffer = buffer
    this.#filter = filter
  }

  /** Something came: drawn with the next frame, with whatever else comes until then. */
  touch(): void {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0
      if (this.isFollowing.value) this.refresh()
      else this.fresh.value = this.#buffer.lines(this.#filter.value, this.#at).length
    })
  }

  refresh(): void {
    this.lines.value = this.#buffer.lines(this.#filter.value)
    this.#at = this.#buffer.received
    this.fresh.value = 0
  }

  follow(isFollowing: boolean): void {
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
  const [buffer, shown] = useMemo(() => {
    const buffer = new LogBuffer()
    return [buffer, new Shown(buffer, filter)] as const
  }, [filter])
  const note = useSignal('')
  const isLive = session.isLive.value
  useEffect(() => {
    if (!isLive) return
    const abort = new AbortController()
    const take = { line: () => shown.touch(), note: (text: string) => (note.value = text) }
    void followLogs(session, service, buffer, take, abort.signal)
    return () => abort.abort()
  }, [isLive, service])
  useEffect(() => () => shown.stop(), [shown])
  useEffect(() => filter.subscribe(() => shown.refresh()), [filter, shown])
  return (
    <>
      <Lines shown={shown} service={service} />
      <div class="logs-foot quiet">
        <span>
          {shown.lines.value.length} lines{filter.value.text || filter.value.replica ? ' that fit' : ''}
          {note.value && ` · ${note.value}`}
        </span>
        {shown.isFollowing.value ? (
          <span>following</span>
        ) : (
          <button type="button" class="button small primary" onClick={() => shown.follow(true)}>
            Jump to end{shown.fresh.value > 0 && ` (${shown.fresh.value} new)`}
          </button>
        )}
      </div>
    </>
  )
}

function Lines({ shown, service }: { shown: Shown; service: string }) {
  const pane = useRef<HTMLDivElement>(null)
  const at = useSignal({ top: 0, height: 600 })
  const lines = shown.lines.value
  const isFollowing = shown.isFollowing.value
  const total = lines.length * LINE_HEIGHT
  const top = isFollowing ? Math.max(0, total - at.value.height) : at.value.top
  const { first, end } = windowOf(top, at.value.height, LINE_HEIGHT, lines.length)

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
    const left = element.scrollHeight - element.scrollTop - element.clientHeight
    const isAtEnd = left < 2 * LINE_HEIGHT
    if (!isAtEnd) at.value = { top: element.scrollTop, height: element.clientHeight }
    shown.follow(isAtEnd)
  }

  return (
    <div ref={pane} class="lines" role="region" aria-label={`Lines of ${service}`} tabIndex={0} onScroll={onScroll}>
      {lines.length === 0 && <p class="empty">No lines.</p>}
      <div class="lines-all" style={{ height: `${total}px` }}>
        <div class="lines-drawn" style={{ transform: `translateY(${first * LINE_HEIGHT}px)` }}>
          {lines.slice(first, end).map((line) => (
            <div key={line.number} class={line.isError ? 'line err' : 'line'}>
              <span class="line-time">{line.time === null ? '' : clock(line.time)}</span>
              <span class="line-from">{line.replica}</span>
              {line.isError && <span class="line-err">err</span>}
              <span>{line.text}</span>
            </div>
          ))}
        </div>
      </div>
    </div>
  )
}
