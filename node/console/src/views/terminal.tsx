// A shell in an instance.

import { useSignal } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'

import { errorMessage } from '../model/actions'
import { serviceHref } from '../model/route'
import { unavailableReason, useSession } from '../model/state'

/** Bash where the image has it, else the shell that it must have. */
const SHELL = ['sh', '-c', 'command -v bash >/dev/null && exec bash || exec sh']

export function TerminalView({ service, replica }: { service: string; replica: number }) {
  const session = useSession()
  const place = useRef<HTMLDivElement>(null)
  /** Counts the shells; each is a new one. */
  const attempt = useSignal(1)
  const ended = useSignal('')
  const disabledReason = unavailableReason(session, 'deployer')
  const isAllowed = disabledReason === ''
  useEffect(() => {
    const element = place.current
    if (!element || !isAllowed) return
    const abort = new AbortController()
    ended.value = ''
    const run = async () => {
      const { runInTerminal } = await import('../components/terminal')
      if (abort.signal.aborted) return
      const request = { service, replica, command: SHELL, tty: true, stdin: true, environment: ['TERM=xterm-256color'], user: null, working_dir: null }
      const code = await runInTerminal(element, (size) => session.mesh.exec({ ...request, size }), abort.signal)
      if (code !== null) ended.value = `The shell has ended with code ${code}.`
    }
    run().catch((error: unknown) => {
      if (!abort.signal.aborted) ended.value = errorMessage(error)
    })
    return () => abort.abort()
    // Not restarted when the connection comes back: the shell was lost with it, and its output stays readable.
  }, [attempt.value])
  return (
    <div class="logs-view">
      <div class="logs-bar">
        <h1>
          Shell in <a href={serviceHref(service)}>{service}</a>.{replica}
        </h1>
      </div>
      <div ref={place} class="shell" />
      <div class="logs-foot" role="status">
        <span class={ended.value || disabledReason ? 'bad-text' : 'quiet'}>{ended.value || disabledReason || 'Ends with this page.'}</span>
        {ended.value && (
          <button type="button" class="button small primary" onClick={() => (attempt.value += 1)}>
            New shell
          </button>
        )}
      </div>
    </div>
  )
}
