// A static host for apps, by the rules of node/console/tunnel/README.md.
import { extname } from 'node:path'

const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json',
}
const BOOT_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; worker-src 'self'; base-uri 'none'; " +
  "form-action 'none'; frame-ancestors 'none'"

/** Answers with a file, or 404 where `content` is null. */
export function send(response, file, content, headers = {}) {
  if (content === null) return refuse(response, 404, 'There is no such file.')
  response.writeHead(200, { 'content-type': TYPES[extname(file)] ?? 'text/plain', 'cache-control': 'no-store', ...headers })
  response.end(content)
}

/** Answers with an error status and a reason. */
export function refuse(response, status, why) {
  response.writeHead(status, { 'content-type': 'text/plain', 'cache-control': 'no-store' })
  response.end(`${why}\n`)
}

/** Answers a request at an app's origin; `read` returns the tunnel's files by name, null for unknown ones. */
export async function answerApp(request, response, read) {
  if (!['GET', 'HEAD'].includes(request.method)) return refuse(response, 405, 'Only GET and HEAD.')
  const { pathname } = new URL(request.url, 'http://app')
  const isOwn = pathname.startsWith('/__vc/')
  if (!isOwn && ![undefined, 'navigate'].includes(request.headers['sec-fetch-mode'])) {
    return refuse(response, 503, 'Only through the service worker.')
  }
  const file = isOwn ? pathname.slice('/__vc/'.length) : 'boot.html'
  const headers = { 'x-content-type-options': 'nosniff' }
  if (file === 'boot.html') headers['content-security-policy'] = BOOT_POLICY
  if (file === 'sw.js') headers['service-worker-allowed'] = '/'
  send(response, file, await read(file), headers)
}
