// The placement of slots with its reasons, unplaced ones first.

import type { MoveRow, PlacementRow, PlanReport, UnplacedRow } from 'vc-mesh'

import { nodeName, useSession } from '../model/state'
import { StatusBadge } from './status-badge'

export function Placements({ plan }: { plan: PlanReport }) {
  return (
    <>
      {plan.unplaced.length > 0 && (
        <ul class="rows placements">
          {plan.unplaced.map((row) => (
            <Unplaced key={slotOf(row)} row={row} />
          ))}
        </ul>
      )}
      <ul class="rows placements">
        {plan.placements.map((row) => (
          <Placed key={slotOf(row)} row={row} move={plan.moves.find((it) => slotOf(it) === slotOf(row))} />
        ))}
      </ul>
    </>
  )
}

function slotOf(row: { service: string; replica: number }): string {
  return `${row.service}.${row.replica}`
}

function Unplaced({ row }: { row: UnplacedRow }) {
  return (
    <li class="row">
      <details open>
        <summary>
          <span class="slot">{slotOf(row)}</span>
          <StatusBadge status={{ tone: 'bad', label: 'unplaced' }} />
        </summary>
        <Reasons reasons={row.reasons} />
      </details>
    </li>
  )
}

function Placed({ row, move }: { row: PlacementRow; move: MoveRow | undefined }) {
  const { nodes } = useSession()
  return (
    <li class="row">
      <details>
        <summary>
          <span class="slot">{slotOf(row)}</span>
          <span>
            <span class="quiet">{move?.from ? `${nodeName(nodes.value, move.from)} → ` : 'on '}</span>
            {row.node_name}
          </span>
          <span>{move && <span class="tag">{move.from ? 'moves' : 'new'}</span>}</span>
          <span class="quiet first-reason">{move?.from ? move.reason : row.reasons[0]}</span>
        </summary>
        <Reasons reasons={row.reasons} />
      </details>
    </li>
  )
}

function Reasons({ reasons }: { reasons: readonly string[] }) {
  return (
    <ul class="reasons">
      {reasons.map((reason) => (
        <li key={reason}>{reason}</li>
      ))}
    </ul>
  )
}
