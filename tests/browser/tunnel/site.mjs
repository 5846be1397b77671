// Serves the console of `console.ts`, and the apps.
import { createServer } from 'node:http'
import { join } from 'node:path'

import { CONSOLE, bundle, bundleScript, serve } from '../harness/serve.mjs'
import { answerApp, refuse, send } from '../harness/static-host.mjs'

const PAGE = '<!doctype html><title>console</title><link rel="icon" href="data:,"><body><script src="/console.js"></script>'

export async function site() {
  const script = await bundleScript(join(import.meta.dirname, 'console.ts'))
  const tunnel = await bundle({ root: join(CONSOLE, 'tunnel') })
  const files = new Map(tunnel.map(({ fileName, code, source }) => [fileName, code ?? source]))
  const { port, close } = await serve(
    createServer((request, response) => {
      const host = request.headers.host.replace(/:\d+$/, '')
      if (host.endsWith('.localhost')) return answerApp(request, response, (name) => files.get(name) ?? null)
      if (host !== '127.0.0.1') return refuse(response, 421, 'Not here.')
      if (request.url === '/console.js') return send(response, 'console.js', script)
      send(response, 'index.html', PAGE, { 'cross-origin-opener-policy': 'same-origin-allow-popups' })
    }),
  )
  return { origin: `http://127.0.0.1:${port}`, close }
}
