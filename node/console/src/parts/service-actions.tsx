// What can be done to a service.

import { useSignal } from '@preact/signals'
import { useId, useRef } from 'preact/hooks'
import type { ServiceRow } from 'vc-mesh'

import { during, isPending, perform } from '../actions'
import { ask } from '../ask'
import { openService } from 'vc-tunnel'
import { MAX_REPLICAS, readPort, readReplicas } from '../services'
import { hindrance, useSession, type Session } from '../state'
import { count } from '../units'
import { Act } from './act'
import { Changes } from './changes'
import { confirm } from './confirm'

/** How many are wanted; another number is asked for only when it is confirmed. */
export function Scale({ row }: { row: ServiceRow }) {
  const session = useSession()
  const hint = useId()
  const group = useRef<HTMLSpanElement>(null)
  const more = useRef<HTMLButtonElement>(null)
  /** What was typed, as it was typed; `null`: nothing. */
  const draft = useSignal<string | null>(null)
  const text = draft.value ?? String(row.replicas)
  const replicas = readReplicas(text)
  const because = hindrance(session, 'deployer')
  const canStep = (by: number) => !because && replicas !== null && readReplicas(String(replicas + by)) !== null
  const take = (typed: string) => {
    draft.value = readReplicas(typed) === row.replicas ? null : typed
  }
  const step = (by: number) => {
    if (canStep(by)) take(String(Number(replicas) + by))
  }
  // Nothing else takes the buttons away, and with them the focus. It goes to a button, where the keys of the page still work.
  const settle = () => {
    const focused = document.activeElement
    if (focused instanceof HTMLButtonElement && group.current?.contains(focused)) more.current?.focus()
    draft.value = null
  }
  const apply = async () => {
    if (because || replicas === null || replicas === row.replicas || isPending(row.service)) return
    if (await perform(session, row.service, { op: 'scale', service: row.service, replicas })) settle()
  }
  return (
    <span ref={group} class="scale" role="group" aria-label={`Replicas of ${row.service}`} title={because || undefined}>
      <span class="stepper">
        <button type="button" aria-label="One less" aria-disabled={!canStep(-1)} onClick={() => step(-1)}>
          −
        </button>
        <input
          type="text"
          inputMode="numeric"
          aria-label="Replicas wanted"
          aria-invalid={replicas === null}
          aria-describedby={replicas === null ? hint : undefined}
          readOnly={because !== ''}
          value={text}
          onInput={(event) => take(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key === 'Enter') void apply()
            if (event.key === 'Escape') draft.value = null
          }}
        />
        <button ref={more} type="button" aria-label="One more" aria-disabled={!canStep(1)} onClick={() => step(1)}>
          +
        </button>
      </span>
      {replicas === null && (
        <span id={hint} class="bad-text">
          0 to {MAX_REPLICAS}
        </span>
      )}
      {draft.value !== null && replicas !== null && (
        <Act
          needs="deployer"
          subject={row.service}
          class="button primary small"
          because={replicas === row.replicas ? 'So many are wanted already.' : ''}
          onAct={() => void apply()}
        >
          Scale to {replicas}
        </Act>
      )}
      {draft.value !== null && (
        <button type="button" class="plain" onClick={settle}>
          Cancel
        </button>
      )}
    </span>
  )
}

/** Its published ports, each opened straight from the mesh. */
export function Ports({ row }: { row: ServiceRow }) {
  const session = useSession()
  const ports = row.ports.map(readPort).filter((it) => it !== null)
  return (
    <span class="ports">
      {ports.map((port) => {
        const text = `:${port.published}`
        if (port.protocol !== 'tcp') {
          return (
            <span key={`${port.published}/${port.protocol}`} class="quiet">
              {text}/{port.protocol}
            </span>
          )
        }
        const subject = `open ${row.service} ${port.published}`
        const open = () => void during(subject, () => openService(session.mesh, row.service, port.published))
        return (
          <Act
            key={port.published}
            needs="viewer"
            subject={subject}
            class="button small"
            label={`Open :${port.published} of ${row.service}`}
            because={row.running === 0 ? 'Nothing of it runs.' : ''}
            onAct={open}
          >
            Open {text}
          </Act>
        )
      })}
    </span>
  )
}

export function RestartButton({ row }: { row: ServiceRow }) {
  const session = useSession()
  const onAct = () =>
    confirm({
      title: `Restart ${row.service}?`,
      body: <p>Its {count(row.replicas, 'instance')} are replaced by new ones of the same spec, as an update would.</p>,
      verb: 'Restart',
      onYes: () => void perform(session, row.service, { op: 'restart', service: row.service }),
    })
  return (
    <Act needs="deployer" subject={row.service} label={`Restart ${row.service}`} onAct={onAct}>
      Restart
    </Act>
  )
}

export function RollbackButton({ row }: { row: ServiceRow }) {
  const session = useSession()
  const onAct = () => void during(row.service, () => askRollback(session, row))
  return (
    <Act needs="deployer" subject={row.service} label={`Roll back ${row.service}`} onAct={onAct}>
      Roll back
    </Act>
  )
}

/** Asks the node what going back would change before it asks the user. */
async function askRollback(session: Session, row: ServiceRow): Promise<void> {
  const { service } = row
  const { previous } = await ask(session, { op: 'inspect', service }, 'service')
  if (!previous) throw new Error(`there is no earlier version of ${service} to go back to`)
  const deployments = [{ service, replicas: null, spec: previous }]
  const diff = await ask(session, { op: 'diff', deployments, files: [] }, 'diff')
  const changes = diff.flatMap((it) => it.changes)
  confirm({
    title: `Roll back ${service}?`,
    body: (
      <>
        <p>{changes.length > 0 ? 'It goes back to the version before. This changes:' : 'The version before is the same.'}</p>
        <Changes lines={changes} />
      </>
    ),
    verb: 'Roll back',
    onYes: () => void perform(session, service, { op: 'rollback', service }),
  })
}

export function RemoveButton({ row }: { row: ServiceRow }) {
  const session = useSession()
  const { service } = row
  const onAct = () =>
    confirm({
      title: `Remove ${service}?`,
      body: <p>Its {count(row.running, 'running instance')} stop and it is deployed no more. Named volumes keep their data.</p>,
      verb: `Remove ${service}`,
      isDangerous: true,
      onYes: () => void perform(session, service, { op: 'remove', service }),
    })
  return (
    <Act needs="deployer" subject={service} class="button danger-text" label={`Remove ${service}`} onAct={onAct}>
      Remove
    </Act>
  )
}
