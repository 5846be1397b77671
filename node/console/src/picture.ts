// Where nodes stand in the picture of the mesh, and which of them hear each other.

import type { NodeRow } from 'vc-mesh'

export interface Point {
  x: number
  y: number
}

export interface Link {
  from: Point
  to: Point
  state: 'heard' | 'cut' | 'down'
  /** What is wrong with it: `alpha cannot hear beta`; empty: they hear each other. */
  why: string
  id: string
}

export interface Picture {
  width: number
  height: number
  /** Half the side of a node. */
  radius: number
  nodes: { row: NodeRow; at: Point }[]
  links: Link[]
}

/** What the name and the state of a node take below it. Pixels. */
const LABEL = 38
/** Above the highest node: the mark of the attached one is around it. Pixels. */
const MARGIN = 6

const DRAWN: readonly Link['state'][] = ['heard', 'down', 'cut']

/** The mesh in a picture of this width. Nodes that left for good are not in it. */
export function drawMesh(nodes: readonly NodeRow[], width: number): Picture {
  const rows = nodes.filter((row) => row.state !== 'left').toSorted((a, b) => a.name.localeCompare(b.name))
  const isNarrow = width < 480
  const isCrowded = rows.length > 6
  const radius = isCrowded && isNarrow ? 20 : 28
  const reach = {
    x: Math.min(Math.max(0, width / 2 - radius * 1.9), isCrowded ? 400 : 250),
    y: reachDown(rows.length, isNarrow),
  }
  const places = rows.map((_, index) => place(index, rows.length, reach))
  // The highest stands just below the upper edge, and the picture ends below the label of the lowest.
  const top = radius + MARGIN - Math.min(...places.map((it) => it.y))
  const drawn = rows.map((row, index) => {
    const { x, y } = places[index] as Point
    return { row, at: { x: width / 2 + x, y: top + y } }
  })
  const height = Math.max(0, ...drawn.map((it) => it.at.y + radius + LABEL))
  const pairs = drawn.flatMap((a, index) =>
    drawn.slice(index + 1).map((b) => ({
      from: a.at,
      to: b.at,
      ...linkBetween(a.row, b.row),
      id: `${a.row.id}-${b.row.id}`,
    })),
  )
  // What is cut is drawn above what is not.
  const links = pairs.toSorted((a, b) => DRAWN.indexOf(a.state) - DRAWN.indexOf(b.state))
  return { width, height, radius, nodes: drawn, links }
}

/** Half the height of the ellipse on which the nodes stand. */
function reachDown(nodes: number, isNarrow: boolean): number {
  if (nodes <= 2) return 0
  if (nodes <= 6) return 90
  return isNarrow ? 190 : 120
}

/** On an ellipse, beginning so that the picture stands upright: three with one at the top, four as a square. */
function place(index: number, total: number, reach: Point): Point {
  if (total === 1) return { x: 0, y: 0 }
  const start = total === 2 ? Math.PI : total % 2 === 0 ? -Math.PI / 2 - Math.PI / total : -Math.PI / 2
  const angle = start + (2 * Math.PI * index) / total
  return { x: reach.x * Math.cos(angle), y: reach.y * Math.sin(angle) }
}

/** Whether two nodes hear each other. */
export function linkBetween(a: NodeRow, b: NodeRow): Pick<Link, 'state' | 'why'> {
  const down = [a, b].filter((it) => it.state === 'down').map((it) => it.name)
  if (down.length > 0) return { state: 'down', why: `${down.join(' and ')} ${down.length === 1 ? 'is' : 'are'} down` }
  const deaf = (one: NodeRow, other: NodeRow) => one.unreachable.includes(other.id)
  if (deaf(a, b) && deaf(b, a)) return { state: 'cut', why: `${a.name} and ${b.name} cannot hear each other` }
  if (deaf(a, b)) return { state: 'cut', why: `${a.name} cannot hear ${b.name}` }
  if (deaf(b, a)) return { state: 'cut', why: `${b.name} cannot hear ${a.name}` }
  return { state: 'heard', why: '' }
}

/** A share between 0 and 1; 0 of nothing is 0. */
export function share(part: number, whole: number): number {
  return whole <= 0 ? 0 : Math.min(1, Math.max(0, part / whole))
}
