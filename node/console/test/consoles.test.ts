import type { NodeRow } from 'vc-mesh'
import { describe, expect, it } from 'vitest'

import { otherConsoles } from '../src/model/consoles'

const node = (name: string, port: number, state = 'up'): NodeRow =>
  ({ name, state, addresses: [`/ip4/10.0.0.1/udp/${port}/quic-v1`, `/ip4/10.0.0.1/tcp/${port}`] }) as unknown as NodeRow

describe('otherConsoles', () => {
  it('names the consoles of nodes that are up, without the own one', () => {
    const nodes = [node('alpha', 7100, 'down'), node('beta', 7110), node('gamma', 7120)]
    expect(otherConsoles(nodes, '7122')).toBe(
      "Run 'vc console' on this computer, or open the console of a node that runs on it: http://127.0.0.1:7112/ (beta).",
    )
  })

  it('names none that it does not know', () => {
    expect(otherConsoles([], '7102')).toBe("Run 'vc console' on this computer.")
  })
})
