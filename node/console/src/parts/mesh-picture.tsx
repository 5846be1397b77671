// The mesh at a glance: nodes as pairs of tanks, CPU and memory, and the links between them.

import { useSignal } from '@preact/signals'
import { useLayoutEffect, useRef } from 'preact/hooks'
import type { NodeRow } from 'vc-mesh'

import { drawMesh, share, type Link, type Point } from '../picture'
import { nodeCondition } from '../services'
import { useSession } from '../state'
import { bytes, cores } from '../units'

export function MeshPicture() {
  const session = useSession()
  const width = useSignal(0)
  const frame = useRef<HTMLDivElement>(null)
  useLayoutEffect(() => {
    const element = frame.current
    if (!element) return
    width.value = element.clientWidth
    const observer = new ResizeObserver(() => (width.value = element.clientWidth))
    observer.observe(element)
    return () => observer.disconnect()
  }, [])
  const picture = drawMesh(session.nodes.value, Math.max(width.value, 280))
  const attached = session.attached.value?.node
  return (
    <div ref={frame} class="mesh">
      <svg
        role="img"
        aria-label={describe(session.nodes.value, picture.links)}
        width={picture.width}
        height={picture.height}
        viewBox={`0 0 ${picture.width} ${picture.height}`}
      >
        {picture.links.map((link) => (
          <line
            key={link.id}
            class={`wire ${link.state}`}
            x1={link.from.x}
            y1={link.from.y}
            x2={link.to.x}
            y2={link.to.y}
          >
            {link.why && <title>{link.why}</title>}
          </line>
        ))}
        {picture.nodes.map(({ row, at }) => (
          <Node key={row.id} row={row} at={at} radius={picture.radius} isAttached={row.id === attached} />
        ))}
      </svg>
    </div>
  )
}

interface NodeProps {
  row: NodeRow
  at: Point
  radius: number
  isAttached: boolean
}

function Node({ row, at, radius, isAttached }: NodeProps) {
  const condition = nodeCondition(row)
  const side = radius * 2
  const gap = 4
  const tank = (side - 3 * gap) / 2
  return (
    <g class={`node ${condition.tone}`} transform={`translate(${at.x} ${at.y})`}>
      <title>
        {`${row.name}: ${condition.word}${isAttached ? ', attached' : ''}. CPU ${cores(row.cpu_used)} used, ` +
          `${cores(row.cpu_reserved)} reserved of ${cores(row.cpu_millis)}; memory ${bytes(row.memory_used)} used, ` +
          `${bytes(row.memory_reserved)} reserved of ${bytes(row.memory_bytes)}`}
      </title>
      {isAttached && <rect class="halo" x={-radius - 4} y={-radius - 4} width={side + 8} height={side + 8} rx="12" />}
      <rect class="case" x={-radius} y={-radius} width={side} height={side} rx="9" />
      {row.state === 'down' ? (
        <path class="cross" d="M-9-9 9 9M9-9-9 9" />
      ) : (
        <>
          <Tank
            x={-radius + gap}
            y={-radius + gap}
            width={tank}
            height={side - 2 * gap}
            used={share(row.cpu_used, row.cpu_millis)}
            reserved={share(row.cpu_reserved, row.cpu_millis)}
          />
          <Tank
            x={-radius + 2 * gap + tank}
            y={-radius + gap}
            width={tank}
            height={side - 2 * gap}
            used={share(row.memory_used, row.memory_bytes)}
            reserved={share(row.memory_reserved, row.memory_bytes)}
          />
        </>
      )}
      <text class="name" y={radius + 17}>
        {row.name.length > 14 ? `${row.name.slice(0, 13)}…` : row.name}
      </text>
      <text class="word" y={radius + 31}>
        {isAttached ? `${condition.word}, attached` : condition.word}
      </text>
    </g>
  )
}

interface TankProps {
  x: number
  y: number
  width: number
  height: number
  used: number
  reserved: number
}

function Tank({ x, y, width, height, used, reserved }: TankProps) {
  const level = (part: number) => ({ y: y + height * (1 - part), height: height * part })
  return (
    <>
      <rect class="tank" x={x} y={y} width={width} height={height} rx="5" />
      <rect class="reserved" x={x} width={width} {...level(reserved)} rx="4" />
      <rect class={used > 0.9 ? 'used full' : 'used'} x={x} width={width} {...level(used)} rx="4" />
    </>
  )
}

function describe(nodes: readonly NodeRow[], links: readonly Link[]): string {
  const conditions = nodes.map((row) => `${row.name} ${nodeCondition(row).word}`)
  const broken = [...new Set(links.map((link) => link.why).filter(Boolean))]
  return `Nodes: ${conditions.join(', ')}. ${broken.length > 0 ? broken.join('; ') : 'All hear each other'}.`
}
