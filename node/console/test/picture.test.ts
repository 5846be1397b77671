import { expect, test } from 'vitest'
import type { NodeRow } from 'vc-mesh'

import { drawMesh, share } from '../src/picture'
import { scene } from './scene'

const [template] = scene(0).nodes as [NodeRow]

function nodes(count: number, more: (index: number) => Partial<NodeRow> = () => ({})): NodeRow[] {
  return Array.from({ length: count }, (_, index) => ({ ...template, id: `id${index}`, name: `m${index}`, ...more(index) }))
}

test('nodes are inside the picture and do not cover each other, on a phone as on a desk', () => {
  for (const width of [300, 360, 780]) {
    for (let count = 1; count <= 10; count += 1) {
      const picture = drawMesh(nodes(count), width)
      const at = picture.nodes.map((it) => it.at)
      const what = `${count} nodes in ${width} pixels`
      expect(at, what).toHaveLength(count)
      for (const { x, y } of at) {
        expect(x, what).toBeGreaterThanOrEqual(picture.radius)
        expect(x, what).toBeLessThanOrEqual(width - picture.radius)
        expect(y, what).toBeGreaterThanOrEqual(picture.radius)
        expect(y + picture.radius, what).toBeLessThan(picture.height)
      }
      for (const [index, a] of at.entries()) {
        for (const b of at.slice(index + 1)) {
          const apart = Math.max(Math.abs(a.x - b.x), Math.abs(a.y - b.y))
          expect(apart, what).toBeGreaterThan(2 * picture.radius)
        }
      }
    }
  }
})

test('every pair has a link, and a link that is cut says between whom', () => {
  const rows = nodes(4, (index) => ({ unreachable: index === 0 ? ['id1'] : index === 2 ? ['id3'] : index === 3 ? ['id2'] : [] }))
  const { links } = drawMesh(rows, 600)
  expect(links).toHaveLength(6)
  const cut = links.filter((link) => link.state === 'cut').map((link) => link.why)
  expect(cut).toEqual(['m0 cannot hear m1', 'm2 and m3 cannot hear each other'])
})

test('all links of a node that is down are cut; one that left is not in the picture', () => {
  const rows = nodes(4, (index) => ({ state: index === 0 ? 'down' : index === 3 ? 'left' : 'up' }))
  const picture = drawMesh(rows, 600)
  expect(picture.nodes.map((it) => it.row.name)).toEqual(['m0', 'm1', 'm2'])
  expect(picture.links.map((link) => link.why)).toEqual(['', 'm0 is down', 'm0 is down'])
})

test('nodes stand where they stood, in whatever order they are told', () => {
  const rows = nodes(5)
  const places = (picture: ReturnType<typeof drawMesh>) => picture.nodes.map((it) => [it.row.id, it.at.x, it.at.y])
  expect(places(drawMesh(rows.toReversed(), 600))).toEqual(places(drawMesh(rows, 600)))
})

test('an empty mesh is an empty picture, and a share is never outside of what there is', () => {
  expect(drawMesh([], 600)).toMatchObject({ nodes: [], links: [], height: 0 })
  expect([share(1, 2), share(3, 2), share(-1, 2), share(1, 0)]).toEqual([0.5, 1, 0, 0])
})
