// Where else a console is served: every node serves one to browsers on its own host, two ports above its own.

import type { NodeRow } from 'vc-mesh'

/** Nodes named, at most. */
const MAX_NAMED = 3
/** Distance of a node's console from its TCP port. */
const OFFSET = 2

/** Returns what to do when the node that serves this page is down, in one line. */
export function otherConsoles(nodes: readonly NodeRow[], own: string = location.port): string {
  const served = nodes.flatMap((node) => {
    const port = node.state === 'up' ? consolePort(node) : null
    return port === null || String(port) === own ? [] : [`http://127.0.0.1:${port}/ (${node.name})`]
  })
  const start = "Run 'vc console' on this computer"
  if (served.length === 0) return `${start}.`
  return `${start}, or open the console of a node that runs on it: ${served.slice(0, MAX_NAMED).join(', ')}.`
}

function consolePort({ addresses }: NodeRow): number | null {
  const found = addresses.map((address) => /\/tcp\/(\d+)/.exec(address)).find((it) => it !== null)
  return found ? Number(found[1]) + OFFSET : null
}
