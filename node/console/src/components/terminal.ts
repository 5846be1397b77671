// A terminal on the page, for a command in an instance. Loaded when it is needed: the emulator is large.

import { FitAddon } from '@xterm/addon-fit'
import { Terminal } from '@xterm/xterm'
import type { RunningCommand } from 'vc-mesh'
import '@xterm/xterm/css/xterm.css'

/** Lines kept above the visible ones. */
const SCROLLBACK = 5000

/** Starts a command with a terminal of this size. */
export type StartCommand = (size: [columns: number, rows: number]) => Promise<RunningCommand>

/**
 * Shows a terminal in `element` until `signal` aborts, and runs a command in it. Returns its exit code; `null` after an abort.
 * Errors: `MeshError`.
 */
export async function runInTerminal(element: HTMLElement, start: StartCommand, signal: AbortSignal): Promise<number | null> {
  const style = getComputedStyle(element)
  const terminal = new Terminal({
    scrollback: SCROLLBACK,
    fontFamily: style.fontFamily,
    fontSize: Number.parseFloat(style.fontSize),
    theme: { background: style.backgroundColor, foreground: style.color, cursor: style.color, selectionBackground: '#80808060' },
    screenReaderMode: true,
  })
  const fit = new FitAddon()
  terminal.loadAddon(fit)
  withoutInlineStyles(() => terminal.open(element))
  fit.fit()
  const observer = new ResizeObserver(() => fit.fit())
  observer.observe(element)
  signal.addEventListener('abort', () => {
    observer.disconnect()
    terminal.dispose()
  })
  const command = await start([terminal.cols, terminal.rows])
  if (signal.aborted) {
    command.close()
    return null
  }
  signal.addEventListener('abort', () => command.close())
  const encoder = new TextEncoder()
  terminal.onData((text) => command.write(encoder.encode(text)))
  terminal.onBinary((bytes) => command.write(Uint8Array.from(bytes, (it) => it.charCodeAt(0))))
  terminal.onResize(({ cols, rows }) => command.resize(cols, rows))
  terminal.focus()
  const output = command.output()
  for (;;) {
    const next = await output.next().catch((error: unknown) => {
      if (signal.aborted) return { done: true as const, value: null }
      throw error
    })
    if (next.done) return next.value
    // Waits for the emulator, so that a command that writes much is slowed down.
    await new Promise<void>((written) => terminal.write(next.value, written))
  }
}

/**
 * Runs `create` with style elements that are adopted style sheets: the emulator writes its rules into style elements, which the
 * policy of the page forbids. It sets 24-bit colours as style attributes, which stay forbidden.
 */
function withoutInlineStyles(create: () => void): void {
  const native = document.createElement
  document.createElement = ((tag: string, options?: ElementCreationOptions) =>
    tag === 'style' ? adoptedStyle(native) : native.call(document, tag, options)) as typeof native
  try {
    create()
  } finally {
    document.createElement = native
  }
}

/** Returns an element whose text is a style sheet of the document until it is removed. */
function adoptedStyle(create: typeof document.createElement): HTMLElement {
  const sheet = new CSSStyleSheet()
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet]
  const element = create.call(document, 'span')
  element.hidden = true
  Object.defineProperties(element, {
    textContent: { get: () => '', set: (rules: string) => sheet.replaceSync(rules) },
    remove: {
      value: () => {
        document.adoptedStyleSheets = document.adoptedStyleSheets.filter((it) => it !== sheet)
        HTMLElement.prototype.remove.call(element)
      },
    },
  })
  return element
}
