import type { NodeRow } from 'vc-mesh'

import { perform } from '../actions'
import { share } from '../picture'
import { nodeCondition } from '../services'
import { useSession, type Session } from '../state'
import { bytes, cores, count } from '../units'
import { Act } from './act'
import { confirm } from './confirm'
import { Mark } from './mark'
import { Bar } from './meter'

export function NodeList() {
  const session = useSession()
  const rows = session.nodes.value.toSorted((a, b) => rank(a) - rank(b) || a.name.localeCompare(b.name))
  return (
    <ul class="rows nodes">
      {rows.map((row) => (
        <Node key={row.id} row={row} />
      ))}
    </ul>
  )
}

/** Those that left for good come last. */
function rank(row: NodeRow): number {
  return row.state === 'left' ? 1 : 0
}

function Node({ row }: { row: NodeRow }) {
  const session = useSession()
  const isAttached = session.attached.value?.node === row.id
  return (
    <li class={`row ${row.state}`}>
      <div class="node-name">
        <h3>{row.name}</h3>
        <Mark condition={nodeCondition(row)} />
        {isAttached && <span class="tag">attached</span>}
      </div>
      {row.state !== 'left' && (
        <>
          <Load name="CPU" used={row.cpu_used} reserved={row.cpu_reserved} total={row.cpu_millis} write={cores} />
          <Load
            name="Memory"
            used={row.memory_used}
            reserved={row.memory_reserved}
            total={row.memory_bytes}
            write={bytes}
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
  write: (amount: number) => string
}

function Load({ name, used, reserved, total, write }: LoadProps) {
  return (
    <div class="load" title={`${write(reserved)} reserved`}>
      <div>
        <span class="quiet">{name}</span> <b>{write(used)}</b> <span class="quiet">of {write(total)}</span>
      </div>
      <Bar used={share(used, total)} reserved={share(reserved, total)} />
      <span class="unseen">{write(reserved)} reserved</span>
    </div>
  )
}

function DrainButton({ row }: { row: NodeRow }) {
  const session = useSession()
  const subject = `node ${row.id}`
  if (row.draining) {
    return (
      <Act needs="admin" subject={subject} label={`Undrain ${row.name}`} onAct={() => drain(session, row, false)}>
        Undrain
      </Act>
    )
  }
  const ask = () =>
    confirm({
      title: `Drain ${row.name}?`,
      body: (
        <p>
          {row.instances === 0 ? 'It runs nothing now.' : `Its ${count(row.instances, 'instance')} move to other nodes.`}{' '}
          Nothing new starts on it until you undrain it.
        </p>
      ),
      verb: `Drain ${row.name}`,
      isDangerous: true,
      onYes: () => drain(session, row, true),
    })
  return (
    <Act needs="admin" subject={subject} label={`Drain ${row.name}`} onAct={ask}>
      Drain
    </Act>
  )
}

function drain(session: Session, row: NodeRow, drain: boolean): void {
  void perform(session, `node ${row.id}`, { op: 'drain', node: row.id, drain })
}
