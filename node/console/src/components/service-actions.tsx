// Buttons for the actions on a service.

import { useSignal } from '@preact/signals'
import { useId, useRef } from 'preact/hooks'
import type { ServiceRow } from 'vc-mesh'
import { ServerDown, openService } from 'vc-tunnel'

import { isPending, perform, trackPending } from '../model/actions'
import { call } from '../model/rpc'
import { otherConsoles } from '../model/consoles'
import { MAX_REPLICAS, parsePort, parseReplicas } from '../model/services'
import { type Session, unavailableReason, useSession } from '../model/state'
import { count } from '../model/units'
import { ActionButton } from './action-button'
import { ChangeList } from './change-list'
import { confirm } from './confirm'

/** Edits the replica count. A new one is sent only when confirmed. */
export function Scale({ row }: { row: ServiceRow }) {
  const session = useSession()
  const hint = useId()
  const group = useRef<HTMLSpanElement>(null)
  const more = useRef<HTMLButtonElement>(null)
  /** The unsaved text; `null` if it equals the current count. */
  const draft = useSignal<string | null>(null)
  const text = draft.value ?? String(row.replicas)
  const replicas = parseReplicas(text)
  const disabledReason = unavailableReason(session, 'deployer')
  const canStep = (by: number) => !disabledReason && replicas !== null && parseReplicas(String(replicas + by)) !== null
  const edit = (input: string) => {
    draft.value = parseReplicas(input) === row.replicas ? null : input
  }
  const step = (by: number) => {
    if (canStep(by)) edit(String(Number(replicas) + by))
  }
  // Removes the buttons, and moves the focus from them to one that stays and where page shortcuts work.
  const reset = () => {
    const focused = document.activeElement
    if (focused instanceof HTMLButtonElement && group.current?.contains(focused)) more.current?.focus()
    draft.value = null
  }
  const apply = async () => {
    if (disabledReason || replicas === null || replicas === row.replicas || isPending(row.service)) return
    if (await perform(session, row.service, { op: 'scale', service: row.service, replicas })) reset()
  }
  return (
    <span ref={group} class="scale" role="group" aria-label={`Replicas of ${row.service}`} title={disabledReason || undefined}>
      <span class="stepper">
        <button type="button" aria-label="One less" aria-disabled={!canStep(-1)} onClick={() => step(-1)}>
          −
        </button>
        <input
          type="text"
          inputMode="numeric"
          aria-label="Desired replicas"
          aria-invalid={replicas === null}
          aria-describedby={replicas === null ? hint : undefined}
          readOnly={disabledReason !== ''}
          value={text}
          onInput={(event) => edit(event.currentTarget.value)}
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
        <ActionButton
          role="deployer"
          subject={row.service}
          class="button primary small"
          disabledReason={replicas === row.replicas ? `Already scaled to ${replicas}.` : ''}
          onPress={() => void apply()}
        >
          Scale to {replicas}
        </ActionButton>
      )}
      {draft.value !== null && (
        <button type="button" class="plain" onClick={reset}>
          Cancel
        </button>
      )}
    </span>
  )
}

/** Opens a service. If the node that serves this page is down, the error says where else to open it. */
async function openPort(session: Session, service: string, port: number): Promise<void> {
  try {
    await openService(session.mesh, service, port)
  } catch (error) {
    throw error instanceof ServerDown ? new Error(`${error.message} ${otherConsoles(session.nodes.value)}`) : error
  }
}

/** Shows the published ports. TCP ports open in a new tab, through the mesh. */
export function Ports({ row }: { row: ServiceRow }) {
  const session = useSession()
  const ports = row.ports.map(parsePort).filter((it) => it !== null)
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
        const open = () => void trackPending(subject, () => openPort(session, row.service, port.published))
        return (
          <ActionButton
            key={port.published}
            role="viewer"
            subject={subject}
            class="button small"
            label={`Open :${port.published} of ${row.service}`}
            disabledReason={row.running === 0 ? 'No instance is running.' : ''}
            onPress={open}
          >
            Open {text}
          </ActionButton>
        )
      })}
    </span>
  )
}

export function RestartButton({ row }: { row: ServiceRow }) {
  const session = useSession()
  const onPress = () =>
    confirm({
      title: `Restart ${row.service}?`,
      body: <p>Its {count(row.replicas, 'instance')} are replaced by new ones with the same spec, by the rules of an update.</p>,
      verb: 'Restart',
      onConfirm: () => void perform(session, row.service, { op: 'restart', service: row.service }),
    })
  return (
    <ActionButton role="deployer" subject={row.service} label={`Restart ${row.service}`} onPress={onPress}>
      Restart
    </ActionButton>
  )
}

export function RollbackButton({ row }: { row: ServiceRow }) {
  const session = useSession()
  const onPress = () => void trackPending(row.service, () => confirmRollback(session, row))
  return (
    <ActionButton role="deployer" subject={row.service} label={`Roll back ${row.service}`} onPress={onPress}>
      Roll back
    </ActionButton>
  )
}

/** Asks the user to confirm a rollback, with the changes that it would make. */
async function confirmRollback(session: Session, row: ServiceRow): Promise<void> {
  const { service } = row
  const { previous } = await call(session, { op: 'inspect', service }, 'service')
  if (!previous) throw new Error(`${service} has no previous version to roll back to`)
  const deployments = [{ service, replicas: null, spec: previous }]
  const diff = await call(session, { op: 'diff', deployments, files: [] }, 'diff')
  const changes = diff.flatMap((it) => it.changes)
  confirm({
    title: `Roll back ${service}?`,
    body: (
      <>
        <p>{changes.length > 0 ? 'The previous version is deployed again. Changes:' : 'The previous version is identical.'}</p>
        <ChangeList lines={changes} />
      </>
    ),
    verb: 'Roll back',
    onConfirm: () => void perform(session, service, { op: 'rollback', service }),
  })
}

export function RemoveButton({ row }: { row: ServiceRow }) {
  const session = useSession()
  const { service } = row
  const onPress = () =>
    confirm({
      title: `Remove ${service}?`,
      body: (
        <p>
          The service and its {count(row.running, 'running instance')} are removed. Named volumes keep their data.
        </p>
      ),
      verb: `Remove ${service}`,
      isDangerous: true,
      onConfirm: () => void perform(session, service, { op: 'remove', service }),
    })
  return (
    <ActionButton role="deployer" subject={service} class="button danger-text" label={`Remove ${service}`} onPress={onPress}>
      Remove
    </ActionButton>
  )
}
