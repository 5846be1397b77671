import { expect, test } from 'vitest'
import type { NodeRow } from 'vc-mesh'

import { layoutTopology } from '../src/model/topology'
import { fraction } from '../src/model/units'
import { clusterView } from './fixtures'

const [template] = clusterView(0).nodes as [NodeRow]

function nodes(count: number, more: (index: number) => Partial<NodeRow> = () => ({})): NodeRow[] {
  return Array.from({ length: count }, (_, index) => ({ ...template, id: `id${index}`, name: `m${index}`, ...more(index) }))
}

test('nodes are inside the graph and do not overlap, at any width', () => {
  for (const width of [300, 360, 780]) {
    for (let count = 1; count <= 10; count += 1) {
      const topology = layoutTopology(nodes(count), width)
      const at = topology.nodes.map((it) => it.at)
      const what = `${count} nodes in ${width} pixels`
      expect(at, what).toHaveLength(count)
      for (const { x, y } of at) {
        expect(x, what).toBeGreaterThanOrEqual(topology.radius)
        expect(x, what).toBeLessThanOrEqual(width - topology.radius)
        expect(y, what).toBeGreaterThanOrEqual(topology.radius)
        expect(y + topology.radius, what).toBeLessThan(topology.height)
      }
      for (const [index, a] of at.entries()) {
        for (const b of at.slice(index + 1)) {
          const apart = Math.max(Math.abs(a.x - b.x), Math.abs(a.y - b.y))
          expect(apart, what).toBeGreaterThan(2 * topology.radius)
        }
      }
    }
  }
})

test('every pair has a link, and one that is unreachable names its nodes', () => {
  const rows = nodes(4, (index) => ({ unreachable: index === 0 ? ['id1'] : index === 2 ? ['id3'] : index === 3 ? ['id2'] : [] }))
  const { links } = layoutTopology(rows, 600)
  expect(links).toHaveLength(6)
  const problems = links.filter((link) => link.state === 'unreachable').map((link) => link.problem)
  expect(problems).toEqual(['m0 cannot reach m1', 'm2 and m3 cannot reach each other'])
})

test('the links of a down node are down, and a node that has left is omitted', () => {
  const rows = nodes(4, (index) => ({ state: index === 0 ? 'down' : index === 3 ? 'left' : 'up' }))
  const topology = layoutTopology(rows, 600)
  expect(topology.nodes.map((it) => it.row.name)).toEqual(['m0', 'm1', 'm2'])
  expect(topology.links.map((link) => link.problem)).toEqual(['', 'm0 is down', 'm0 is down'])
})

test('positions do not depend on the order of the nodes', () => {
  const rows = nodes(5)
  const positions = (topology: ReturnType<typeof layoutTopology>) => topology.nodes.map((it) => [it.row.id, it.at.x, it.at.y])
  expect(positions(layoutTopology(rows.toReversed(), 600))).toEqual(positions(layoutTopology(rows, 600)))
})

test('an empty cluster has an empty layout, and fractions are clamped', () => {
  expect(layoutTopology([], 600)).toMatchObject({ nodes: [], links: [], height: 0 })
  expect([fraction(1, 2), fraction(3, 2), fraction(-1, 2), fraction(1, 0)]).toEqual([0.5, 1, 0, 0])
})
