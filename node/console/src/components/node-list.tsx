import type { NodeRow } from 'vc-mesh'

import { perform } from '../model/actions'
import { nodeHref } from '../model/route'
import { type Session, useSession } from '../model/state'
import { nodeStatus } from '../model/status'
import { fraction } from '../model/units'
import { bytes, cores, count } from '../model/units'
import { ActionButton } from './action-button'
import { confirm } from './confirm'
import { StatusBadge } from './status-badge'
import { UsageBar } from './usage'

/** How long nodes that have left are listed, in milliseconds. */
const LEFT_SHOWN = 24 * 60 * 60 * 1000

export function NodeList() {
  const session = useSession()
  const shown = session.nodes.value.filter((row) => !row.left || Date.now() - row.left < LEFT_SHOWN)
  const rows = shown.toSorted((a, b) => rank(a) - rank(b) || a.name.localeCompare(b.name))
  return (
    <ul class="rows nodes">
      {rows.map((row) => (
        <Node key={row.id} row={row} />
      ))}
    </ul>
  )
}

/** Sorts nodes that have left the cluster last. */
function rank(row: NodeRow): number {
  return row.state === 'left' ? 1 : 0
}

function Node({ row }: { row: NodeRow }) {
  const session = useSession()
  const isAttached = session.attached.value?.node === row.id
  return (
    <li class={`row ${row.state}`}>
      <div class="node-name">
        <h3>
          <a href={nodeHref(row.name)}>{row.name}</a>
        </h3>
        <StatusBadge status={nodeStatus(row, session.nodes.value)} />
        {row.role === 'witness' && <span class="tag">witness</span>}
        {row.votes && <span class="tag">voter</span>}
        {isAttached && <span class="tag">attached</span>}
      </div>
      {row.state !== 'left' && (
        <>
          <Load name="CPU" used={row.cpu_used} reserved={row.cpu_reserved} total={row.cpu_millis} format={cores} />
          <Load
            name="Memory"
            used={row.memory_used}
            reserved={row.memory_reserved}
            total={row.memory_bytes}
            format={bytes}
          />
          <div class="node-runs">{count(row.instances, 'instance')}</div>
          <div class="actions">
            <DrainButton row={row} />
          </div>
        </>
      )}
      <div class="node-foot quiet">
        {row.problem && <span class="bad-text">{row.problem}</span>}
        <span>{[row.runtime, row.platform, row.version].filter(Boolean).join(' · ')}</span>
        {Object.entries(row.labels).map(([key, value]) => (
          <span key={key} class="label">
            {key}={value}
          </span>
        ))}
        {row.addresses.length > 0 && (
          <details>
            <summary>{row.addresses.length === 1 ? '1 address' : `${row.addresses.length} addresses`}</summary>
            <ul class="addresses">
              {row.addresses.map((address) => (
                <li key={address}>{address}</li>
              ))}
            </ul>
          </details>
        )}
      </div>
    </li>
  )
}

interface LoadProps {
  name: string
  used: number
  reserved: number
  total: number
  format: (amount: number) => string
}

function Load({ name, used, reserved, total, format }: LoadProps) {
  return (
    <div class="load" title={`${format(reserved)} reserved`}>
      <div>
        <span class="quiet">{name}</span> <b>{format(used)}</b> <span class="quiet">of {format(total)}</span>
      </div>
      <UsageBar used={fraction(used, total)} reserved={fraction(reserved, total)} />
      <span class="visually-hidden">{format(reserved)} reserved</span>
    </div>
  )
}

/** Drains a node, after a confirmation, or ends that. */
export function DrainButton({ row }: { row: NodeRow }) {
  const session = useSession()
  const subject = `node ${row.id}`
  if (row.draining) {
    return (
      <ActionButton role="admin" subject={subject} label={`Undrain ${row.name}`} onPress={() => drain(session, row, false)}>
        Undrain
      </ActionButton>
    )
  }
  const onPress = () =>
    confirm({
      title: `Drain ${row.name}?`,
      body: (
        <p>
          {row.instances === 0 ? 'It runs no instances.' : `Its ${count(row.instances, 'instance')} move to other nodes.`}{' '}
          No instances are placed on it until it is undrained.
        </p>
      ),
      verb: `Drain ${row.name}`,
      isDangerous: true,
      onConfirm: () => drain(session, row, true),
    })
  return (
    <ActionButton role="admin" subject={subject} label={`Drain ${row.name}`} onPress={onPress}>
      Drain
    </ActionButton>
  )
}

function drain(session: Session, row: NodeRow, drain: boolean): void {
  void perform(session, `node ${row.id}`, { op: 'drain', node: row.id, drain })
}
