// Serves the console of `console.ts`, and the tunnel's files by the rules of node/console/tunnel/README.md.
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { once } from 'node:events'
import { pathToFileURL } from 'node:url'

import { ROOT } from '../harness/node.mjs'

const CONSOLE = join(ROOT, 'node/console')
const TYPES = { html: 'text/html; charset=utf-8', js: 'text/javascript; charset=utf-8', css: 'text/css; charset=utf-8' }
const PAGE = '<!doctype html><title>console</title><link rel="icon" href="data:,"><body><script src="/console.js"></script>'
const BOOT_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; worker-src 'self'; base-uri 'none'; " +
  "form-action 'none'; frame-ancestors 'none'"

/** The console's script, and the tunnel's files by name. */
async function built() {
  const { build } = await import(pathToFileURL(createRequire(join(CONSOLE, 'package.json')).resolve('vite')))
  const lib = { entry: join(import.meta.dirname, 'console.ts'), formats: ['iife'], name: '_' }
  const [script] = await build({ configFile: false, root: CONSOLE, logLevel: 'error', build: { write: false, lib } })
  const tunnel = await build({ root: join(CONSOLE, 'tunnel'), logLevel: 'error', build: { write: false } })
  const files = [tunnel].flat().flatMap(({ output }) => output.map((it) => [it.fileName, it.code ?? it.source]))
  return { script: script.output[0].code, files: new Map(files) }
}

function send(response, status, type, body, headers = {}) {
  response.writeHead(status, { 'content-type': TYPES[type] ?? 'text/plain', 'cache-control': 'no-store', ...headers })
  response.end(body)
}

export async function site() {
  const { script, files } = await built()

  function tunnel(request, response, path) {
    if (!['GET', 'HEAD'].includes(request.method)) return send(response, 405, 'txt', 'Only GET and HEAD.\n')
    const file = path.startsWith('/__vc/') ? path.slice(6) : 'boot.html'
    if (!path.startsWith('/__vc/') && ![undefined, 'navigate'].includes(request.headers['sec-fetch-mode'])) {
      return send(response, 503, 'txt', 'Only through the service worker.\n')
    }
    const content = files.get(file)
    if (!content) return send(response, 404, 'txt', 'There is no such file.\n')
    const headers = { 'x-content-type-options': 'nosniff' }
    if (file === 'boot.html') headers['content-security-policy'] = BOOT_POLICY
    if (file === 'sw.js') headers['service-worker-allowed'] = '/'
    send(response, 200, file.split('.').pop(), content, headers)
  }

  const server = createServer((request, response) => {
    const host = request.headers.host.replace(/:\d+$/, '')
    const { pathname } = new URL(request.url, 'http://console')
    if (host.endsWith('.localhost')) return tunnel(request, response, pathname)
    if (host !== '127.0.0.1') return send(response, 421, 'txt', 'Not here.\n')
    if (pathname === '/console.js') return send(response, 200, 'js', script)
    send(response, 200, 'html', PAGE, { 'cross-origin-opener-policy': 'same-origin-allow-popups' })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    close: () => {
      server.closeAllConnections()
      server.close()
    },
  }
}
