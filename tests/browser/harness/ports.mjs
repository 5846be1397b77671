// Free ports.
import { createSocket } from 'node:dgram'
import { createServer } from 'node:net'

/** Below the kernel's range of ephemeral ports. */
const [FIRST, LAST] = [20_000, 31_996]
/** A node uses its port and the ones after it. */
const STEP = 4

function free(port, socket) {
  return new Promise((done) => {
    socket.once('error', () => done(false))
    const bound = () => socket.close(() => done(true))
    if (socket.bind) socket.bind(port, '0.0.0.0', bound)
    else socket.listen(port, '0.0.0.0', bound)
  })
}

/** What was returned before: its user may not listen yet, or listen in another network namespace. */
const given = new Set()

/** Returns a port that is free for TCP and UDP, with the three after it, another each time. */
export async function freePort() {
  for (;;) {
    const port = FIRST + Math.floor((Math.random() * (LAST - FIRST)) / STEP) * STEP
    const checks = [0, 1, 2, 3].flatMap((i) => [free(port + i, createServer()), free(port + i, createSocket('udp4'))])
    if (!(await Promise.all(checks)).every(Boolean) || given.has(port)) continue
    given.add(port)
    return port
  }
}
