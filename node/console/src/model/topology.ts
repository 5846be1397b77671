// The layout of the topology graph, and which nodes can reach each other.

import type { NodeRow } from 'vc-mesh'

export interface Point {
  x: number
  y: number
}

export interface Link {
  from: Point
  to: Point
  /** `unreachable`: both nodes are up, and at least one cannot reach the other. */
  state: 'connected' | 'unreachable' | 'down'
  /** `alpha cannot reach beta`; empty for a link that is connected. */
  problem: string
  id: string
}

/** A layout of the cluster. Lengths are pixels. */
export interface Topology {
  width: number
  height: number
  /** Half the side of a node's box. */
  radius: number
  nodes: { row: NodeRow; at: Point }[]
  links: Link[]
}

/** Height of a node's name and state below its box, pixels. */
const LABEL = 38
/** Space above the topmost box for the highlight of the attached node, pixels. */
const MARGIN = 6

/** Paint order: problems are drawn last, above the others. */
const PAINT_ORDER: readonly Link['state'][] = ['connected', 'down', 'unreachable']

/** Lays out the nodes on an ellipse in a graph of this width. Nodes that have left the cluster are omitted. */
export function layoutTopology(nodes: readonly NodeRow[], width: number): Topology {
  const rows = nodes.filter((row) => row.state !== 'left').toSorted((a, b) => a.name.localeCompare(b.name))
  const isNarrow = width < 480
  const isCrowded = rows.length > 6
  const radius = isCrowded && isNarrow ? 20 : 28
  const semiAxes = {
    x: Math.min(Math.max(0, width / 2 - radius * 1.9), isCrowded ? 400 : 250),
    y: verticalSemiAxis(rows.length, isNarrow),
  }
  const positions = rows.map((_, index) => positionOf(index, rows.length, semiAxes))
  const top = radius + MARGIN - Math.min(...positions.map((it) => it.y))
  const placed = rows.map((row, index) => {
    const { x, y } = positions[index] as Point
    return { row, at: { x: width / 2 + x, y: top + y } }
  })
  const height = Math.max(0, ...placed.map((it) => it.at.y + radius + LABEL))
  const pairs = placed.flatMap((a, index) =>
    placed.slice(index + 1).map((b) => ({
      from: a.at,
      to: b.at,
      ...linkBetween(a.row, b.row),
      id: `${a.row.id}-${b.row.id}`,
    })),
  )
  const links = pairs.toSorted((a, b) => PAINT_ORDER.indexOf(a.state) - PAINT_ORDER.indexOf(b.state))
  return { width, height, radius, nodes: placed, links }
}

function verticalSemiAxis(nodes: number, isNarrow: boolean): number {
  if (nodes <= 2) return 0
  if (nodes <= 6) return 90
  return isNarrow ? 190 : 120
}

/** Returns a position on the ellipse. Three nodes have one at the top, four form a rectangle. */
function positionOf(index: number, total: number, semiAxes: Point): Point {
  if (total === 1) return { x: 0, y: 0 }
  const start = total === 2 ? Math.PI : total % 2 === 0 ? -Math.PI / 2 - Math.PI / total : -Math.PI / 2
  const angle = start + (2 * Math.PI * index) / total
  return { x: semiAxes.x * Math.cos(angle), y: semiAxes.y * Math.sin(angle) }
}

/** Returns whether two nodes can reach each other. */
export function linkBetween(a: NodeRow, b: NodeRow): Pick<Link, 'state' | 'problem'> {
  const down = [a, b].filter((it) => it.state === 'down').map((it) => it.name)
  if (down.length > 0) return { state: 'down', problem: `${down.join(' and ')} ${down.length === 1 ? 'is' : 'are'} down` }
  const cannotReach = (from: NodeRow, to: NodeRow) => from.unreachable.includes(to.id)
  if (cannotReach(a, b) && cannotReach(b, a)) {
    return { state: 'unreachable', problem: `${a.name} and ${b.name} cannot reach each other` }
  }
  if (cannotReach(a, b)) return { state: 'unreachable', problem: `${a.name} cannot reach ${b.name}` }
  if (cannotReach(b, a)) return { state: 'unreachable', problem: `${b.name} cannot reach ${a.name}` }
  return { state: 'connected', problem: '' }
}
