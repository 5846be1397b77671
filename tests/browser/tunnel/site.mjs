// Serves a console, and the tunnel's files by the rules of node/console/tunnel/README.md; stands in for the mesh.
import { createServer, request as ask } from 'node:http'
import { createRequire } from 'node:module'
import { readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { once } from 'node:events'
import { pathToFileURL } from 'node:url'
import { WebSocket, WebSocketServer } from 'ws'

const CONSOLE = resolve(import.meta.dirname, '../../../node/console')
const TUNNEL = join(CONSOLE, 'dist/tunnel')
const TYPES = { html: 'text/html; charset=utf-8', js: 'text/javascript; charset=utf-8', css: 'text/css; charset=utf-8' }
const BOOT_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; worker-src 'self'; base-uri 'none'; " +
  "form-action 'none'; frame-ancestors 'none'"

/** The page of `console.ts`, in one piece. */
async function script() {
  const vite = pathToFileURL(createRequire(join(CONSOLE, 'package.json')).resolve('vite'))
  const { build } = await import(vite)
  const entry = join(import.meta.dirname, 'console.ts')
  const lib = { entry, formats: ['iife'], name: '_' }
  const [built] = await build({ configFile: false, root: CONSOLE, logLevel: 'error', build: { write: false, lib } })
  return built.output[0].code
}

/** @param {Record<string, number>} services where each service is: `shop/web` -> its port on 127.0.0.1 */
export async function site(services) {
  const code = await script()
  const buttons = Object.entries(services).map(([name, port]) => `<button data-service="${name}" data-port="${port}">${name}</button>`)
  const page = `<!doctype html><title>console</title>${buttons.join('')}<script src="/console.js"></script>`
  const send = (response, status, type, body, headers = {}) => {
    response.writeHead(status, { 'content-type': TYPES[type] ?? 'text/plain', 'cache-control': 'no-store', ...headers })
    response.end(body)
  }

  async function tunnel(request, response, path) {
    if (!['GET', 'HEAD'].includes(request.method)) return send(response, 405, 'txt', 'Only GET and HEAD.\n')
    const file = path.startsWith('/__vc/') ? path.slice(6) : 'boot.html'
    if (file === 'boot.html' && ![undefined, 'navigate'].includes(request.headers['sec-fetch-mode'])) {
      return send(response, 503, 'txt', 'Only through the service worker.\n')
    }
    const content = await readFile(join(TUNNEL, file)).catch(() => null)
    if (!content) return send(response, 404, 'txt', 'There is no such file.\n')
    const headers = { 'x-content-type-options': 'nosniff' }
    if (file === 'boot.html') headers['content-security-policy'] = BOOT_POLICY
    if (file === 'sw.js') headers['service-worker-allowed'] = '/'
    send(response, 200, file.split('.').pop(), content, headers)
  }

  function exchange(request, response) {
    const { service, port, method, target, headers } = JSON.parse(decodeURIComponent(request.headers['x-request']))
    const answer = (head, body) => {
      response.writeHead(200, { 'x-answer': encodeURIComponent(JSON.stringify(head)) })
      body ? body.pipe(response) : response.end()
    }
    if (services[service] !== port) return answer({ error: `${service} does not publish port ${port}` })
    const asked = ask({ host: '127.0.0.1', port, method, path: target, headers: headers.flat(), setHost: false })
    asked.on('error', (error) => (response.headersSent ? response.destroy() : answer({ error: error.message })))
    asked.on('response', (got) => {
      const pairs = got.rawHeaders.flatMap((name, i, all) => (i % 2 === 0 ? [[name, all[i + 1]]] : []))
      const hop = ['connection', 'keep-alive', 'transfer-encoding']
      answer({ status: got.statusCode, headers: pairs.filter(([name]) => !hop.includes(name.toLowerCase())) }, got)
      got.on('error', () => response.destroy())
    })
    response.on('close', () => asked.destroy())
    request.pipe(asked)
  }

  const server = createServer((request, response) => {
    const host = request.headers.host.replace(/:\d+$/, '')
    const { pathname } = new URL(request.url, 'http://console')
    if (host.endsWith('.localhost')) return void tunnel(request, response, pathname)
    if (host !== '127.0.0.1') return send(response, 421, 'txt', 'Not here.\n')
    if (pathname === '/console.js') return send(response, 200, 'js', code)
    if (pathname === '/fake/exchange') return exchange(request, response)
    send(response, 200, 'html', page, { 'cross-origin-opener-policy': 'same-origin-allow-popups' })
  })

  const sockets = new WebSocketServer({ noServer: true })
  server.on('upgrade', (request, socket, head) => {
    const given = new URL(request.url, 'http://console').searchParams.get('request')
    const { port, target, headers } = JSON.parse(given)
    const offered = request.headers['sec-websocket-protocol']?.split(/, */) ?? []
    const beyond = new WebSocket(`ws://127.0.0.1:${port}${target}`, offered, { headers: Object.fromEntries(headers) })
    const early = []
    beyond.on('message', (data, binary) => early.push([data, binary]))
    beyond.on('error', () => socket.destroy())
    beyond.on('open', () => {
      sockets.options.handleProtocols = () => beyond.protocol || false
      sockets.handleUpgrade(request, socket, head, (near) => {
        beyond.removeAllListeners('message')
        for (const [data, binary] of early) near.send(data, { binary })
        beyond.on('message', (data, binary) => near.send(data, { binary }))
        near.on('message', (data, binary) => beyond.send(data, { binary }))
        const end = (to) => (code, reason) => (code === 1005 ? to.close() : code === 1006 ? to.terminate() : to.close(code, reason))
        beyond.on('close', end(near))
        near.on('close', end(beyond))
      })
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  return { origin: `http://127.0.0.1:${port}`, port, close: () => (server.closeAllConnections(), server.close()) }
}
