// The topology graph: nodes with gauges for CPU and memory, and the links between them.

import { useSignal } from '@preact/signals'
import { useLayoutEffect, useRef } from 'preact/hooks'
import type { NodeRow } from 'vc-mesh'

import { useSession } from '../model/state'
import { nodeStatus } from '../model/status'
import { layoutTopology, type Link, type Point } from '../model/topology'
import { bytes, cores, fraction } from '../model/units'

export function TopologyGraph() {
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
  const topology = layoutTopology(session.nodes.value, Math.max(width.value, 280))
  const attached = session.attached.value?.node
  return (
    <div ref={frame} class="mesh">
      <svg
        role="img"
        aria-label={describe(session.nodes.value, topology.links)}
        width={topology.width}
        height={topology.height}
        viewBox={`0 0 ${topology.width} ${topology.height}`}
      >
        {topology.links.map((link) => (
          <line
            key={link.id}
            class={`edge ${link.state}`}
            x1={link.from.x}
            y1={link.from.y}
            x2={link.to.x}
            y2={link.to.y}
          >
            {link.problem && <title>{link.problem}</title>}
          </line>
        ))}
        {topology.nodes.map(({ row, at }) => (
          <Node key={row.id} row={row} at={at} radius={topology.radius} isAttached={row.id === attached} />
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
  const status = nodeStatus(row, useSession().nodes.value)
  const side = radius * 2
  const gap = 4
  const gaugeWidth = (side - 3 * gap) / 2
  return (
    <g class={`node ${status.tone}`} transform={`translate(${at.x} ${at.y})`}>
      <title>
        {`${row.name}: ${status.label}${isAttached ? ', attached' : ''}. CPU ${cores(row.cpu_used)} used, ` +
          `${cores(row.cpu_reserved)} reserved of ${cores(row.cpu_millis)}; memory ${bytes(row.memory_used)} used, ` +
          `${bytes(row.memory_reserved)} reserved of ${bytes(row.memory_bytes)}`}
      </title>
      {isAttached && <rect class="highlight" x={-radius - 4} y={-radius - 4} width={side + 8} height={side + 8} rx="12" />}
      <rect class="box" x={-radius} y={-radius} width={side} height={side} rx="9" />
      {row.state === 'down' ? (
        <path class="cross" d="M-9-9 9 9M9-9-9 9" />
      ) : (
        <>
          <Gauge
            x={-radius + gap}
            y={-radius + gap}
            width={gaugeWidth}
            height={side - 2 * gap}
            used={fraction(row.cpu_used, row.cpu_millis)}
            reserved={fraction(row.cpu_reserved, row.cpu_millis)}
          />
          <Gauge
            x={-radius + 2 * gap + gaugeWidth}
            y={-radius + gap}
            width={gaugeWidth}
            height={side - 2 * gap}
            used={fraction(row.memory_used, row.memory_bytes)}
            reserved={fraction(row.memory_reserved, row.memory_bytes)}
          />
        </>
      )}
      <text class="name" y={radius + 17}>
        {row.name.length > 14 ? `${row.name.slice(0, 13)}…` : row.name}
      </text>
      <text class="state" y={radius + 31}>
        {isAttached ? `${status.label}, attached` : status.label}
      </text>
    </g>
  )
}

interface GaugeProps {
  x: number
  y: number
  width: number
  height: number
  used: number
  reserved: number
}

function Gauge({ x, y, width, height, used, reserved }: GaugeProps) {
  const level = (part: number) => ({ y: y + height * (1 - part), height: height * part })
  return (
    <>
      <rect class="gauge" x={x} y={y} width={width} height={height} rx="5" />
      <rect class="reserved" x={x} width={width} {...level(reserved)} rx="4" />
      <rect class={used > 0.9 ? 'used full' : 'used'} x={x} width={width} {...level(used)} rx="4" />
    </>
  )
}

function describe(nodes: readonly NodeRow[], links: readonly Link[]): string {
  const states = nodes.map((row) => `${row.name} ${nodeStatus(row, nodes).label}`)
  const problems = [...new Set(links.map((link) => link.problem).filter(Boolean))]
  return `Nodes: ${states.join(', ')}. ${problems.length > 0 ? problems.join('; ') : 'All nodes are connected'}.`
}
