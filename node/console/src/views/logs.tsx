import { useComputed, useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'

import { LogPane } from '../components/log-pane'
import { logsHref } from '../model/route'
import { useSession } from '../model/state'

export function Logs({ service, replica: chosen }: { service: string | null; replica: number | null }) {
  const session = useSession()
  const replica = useSignal(chosen)
  const text = useSignal('')
  const onlyErrors = useSignal(false)
  const filter = useComputed(() => ({ replica: replica.value, text: text.value, onlyErrors: onlyErrors.value }))
  const services = session.services.value.map((row) => row.service).toSorted()
  useEffect(() => {
    replica.value = chosen
  }, [service, chosen])
  const numbers = session.instances.value.filter((it) => it.service === service).map((it) => it.replica)
  const replicas = [...new Set(chosen === null ? numbers : [...numbers, chosen])].toSorted((a, b) => a - b)
  return (
    <div class="logs-view">
      <div class="logs-bar">
        <h1>Logs</h1>
        <label>
          <span class="visually-hidden">Service</span>
          <select
            value={service ?? ''}
            onChange={(event) => (location.hash = event.currentTarget.value ? logsHref(event.currentTarget.value) : '#/logs')}
          >
            <option value="">Choose a service</option>
            {services.map((it) => (
              <option key={it} value={it}>
                {it}
              </option>
            ))}
          </select>
        </label>
        {service && (
          <>
            <label>
              <span class="visually-hidden">Replica</span>
              <select
                value={replica.value ?? ''}
                onChange={(event) => (replica.value = Number(event.currentTarget.value) || null)}
              >
                <option value="">All replicas</option>
                {replicas.map((it) => (
                  <option key={it} value={it}>
                    Replica {it}
                  </option>
                ))}
              </select>
            </label>
            <input
              type="search"
              aria-label="Filter lines"
              placeholder="Filter lines"
              value={text.value}
              onInput={(event) => (text.value = event.currentTarget.value)}
            />
            <label class="check">
              <input type="checkbox" checked={onlyErrors.value} onChange={(event) => (onlyErrors.value = event.currentTarget.checked)} />
              Only stderr
            </label>
          </>
        )}
      </div>
      {service ? (
        <LogPane key={service} service={service} filter={filter} />
      ) : (
        <p class="empty">Choose a service to show its logs.</p>
      )}
    </div>
  )
}
