// An app like those that people run, for tests of the way to it: `node server.mjs PORT [NAME]`, on 127.0.0.1.
// Whatever is asked for, `header=NAME: VALUE` adds a header to the answer, and `x-app` is the name of this one.
//
//   /                    a page that loads a script, a style and a picture, all by relative links
//   /bytes?n=N           N bytes, the same each time, for pages of any origin; with `chunked`, without a length
//   /digest?n=N          SHA-256 of those, hexadecimal
//   /range               1 MiB of them, of which parts can be had (Range, If-Range, 206, 416)
//   /echo                method, target and headers of a request as JSON; the body of one that has one, as it came
//   /upload              how many bytes the body had, and their SHA-256, as JSON
//   /slow?count=N&every=MS   N lines, one each MS, as server-sent events
//   /redirect?to=URL&status=S   to another place
//   /cookie?set=a%3D1&set=b%3D2   sets cookies; answers with those that came
//   /status?code=S       an answer without a body
//   /cut?n=N             promises N bytes, sends half of them, and hangs up
//   /broken              a head, and right behind it what is no body
//   /silent              no answer, for as long as the client waits
//   /waiting             how many wait for that
//   /late?id=ID          an answer once it is released: method, body, and how many were asked until then, as JSON
//   /asked?id=ID         how many were asked
//   /release?id=ID       releases those, also the later ones
//   /basic               asks for a user and a password, `ada` and `grün:1`; answers with the method and the body
//   /exit                no answer: the app ends
//   /gone                how many answers were not wanted any more before they were complete
//   /page?html=HTML      a page
//   /ws                  a WebSocket that sends back what it gets; `close CODE REASON` closes it
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { createServer } from 'node:http'
import { pipeline } from 'node:stream'
import { setTimeout as pause } from 'node:timers/promises'
import { WebSocketServer } from 'ws'

const RANGE_BYTES = 1 << 20
const BLOCK = 64 * 1024
const FILES = { '/': 'index.html', '/app.js': 'app.js', '/app.css': 'app.css', '/logo.svg': 'logo.svg' }
const TYPES = { html: 'text/html; charset=utf-8', js: 'text/javascript', css: 'text/css', svg: 'image/svg+xml' }

let gone = 0
let silent = 0
const held = new Map()

/** The requests to `/late` with this id. */
function lateOf(id) {
  if (!held.has(id)) {
    const it = { asked: 0 }
    it.released = new Promise((done) => (it.release = done))
    held.set(id, it)
  }
  return held.get(id)
}

/** Byte i of all content is the same whatever is asked for; blocks differ, so that none can be taken for another. */
function* content(total) {
  const pattern = Buffer.alloc(BLOCK)
  for (let i = 0, state = 1; i < BLOCK; i++) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    pattern[i] = state >>> 16
  }
  for (let sent = 0; sent < total; sent += BLOCK) {
    const block = Buffer.from(pattern)
    block.writeUInt32BE(sent / BLOCK)
    yield block.subarray(0, Math.min(BLOCK, total - sent))
  }
}

/** As fast as it is taken. Whether that was all of it is counted elsewhere. */
function send(response, pieces) {
  pipeline(pieces, response, () => {})
}

function digest(total) {
  const hash = createHash('sha256')
  for (const block of content(total)) hash.update(block)
  return hash.digest('hex')
}

function json(response, value, headers = {}) {
  response.writeHead(200, { 'content-type': 'application/json', 'cache-control': 'no-store', ...headers })
  response.end(JSON.stringify(value))
}

function range(request, response) {
  const all = Buffer.concat([...content(RANGE_BYTES)])
  const headers = { 'accept-ranges': 'bytes', etag: '"1"', 'content-type': 'application/octet-stream' }
  const asked = /^bytes=(\d*)-(\d*)$/.exec(request.headers.range ?? '')
  if (!asked || (request.headers['if-range'] ?? '"1"') !== '"1"') {
    response.writeHead(200, { ...headers, 'content-length': RANGE_BYTES })
    return response.end(request.method === 'HEAD' ? undefined : all)
  }
  const [, first, last] = asked
  const from = first === '' ? RANGE_BYTES - Number(last) : Number(first)
  const to = first === '' || last === '' ? RANGE_BYTES - 1 : Math.min(Number(last), RANGE_BYTES - 1)
  if (from > to || from >= RANGE_BYTES) {
    response.writeHead(416, { ...headers, 'content-range': `bytes */${RANGE_BYTES}` })
    return response.end()
  }
  response.writeHead(206, { ...headers, 'content-range': `bytes ${from}-${to}/${RANGE_BYTES}`, 'content-length': to - from + 1 })
  response.end(all.subarray(from, to + 1))
}

async function* ticks(count, every) {
  for (let i = 1; i <= count; i++) {
    yield `data: ${i}\n\n`
    await pause(every)
  }
}

const server = createServer(async (request, response) => {
  const url = new URL(request.url, 'http://app')
  const number = (name, otherwise) => Number(url.searchParams.get(name) ?? otherwise)
  response.on('close', () => response.writableFinished || gone++)
  response.setHeader('x-app', process.argv[3] ?? 'app')
  for (const header of url.searchParams.getAll('header')) response.appendHeader(...header.split(': ', 2))
  switch (url.pathname) {
    case '/bytes': {
      const n = number('n', 1024)
      const length = url.searchParams.has('chunked') ? {} : { 'content-length': n }
      const anybody = { 'access-control-allow-origin': '*' }
      response.writeHead(200, { 'content-type': 'application/octet-stream', 'cache-control': 'no-store', ...anybody, ...length })
      return request.method === 'HEAD' ? response.end() : send(response, content(n))
    }
    case '/digest':
      return json(response, digest(number('n', 1024)))
    case '/range':
      return range(request, response)
    case '/echo': {
      const { method, headers, rawHeaders } = request
      if (method === 'GET' || method === 'HEAD') return json(response, { method, target: request.url, headers, rawHeaders })
      response.writeHead(200, { 'content-type': headers['content-type'] ?? 'application/octet-stream' })
      return send(response, request)
    }
    case '/upload': {
      const hash = createHash('sha256')
      let bytes = 0
      for await (const piece of request) {
        hash.update(piece)
        bytes += piece.length
      }
      return json(response, { bytes, sha256: hash.digest('hex'), type: request.headers['content-type'] ?? null })
    }
    case '/slow':
      response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
      return send(response, ticks(number('count', 5), number('every', 200)))
    case '/redirect':
      response.writeHead(number('status', 302), { location: url.searchParams.get('to') ?? '/' })
      return response.end()
    case '/cookie':
      return json(response, request.headers.cookie ?? '', { 'set-cookie': url.searchParams.getAll('set') })
    case '/status':
      response.writeHead(number('code', 204))
      return response.end()
    case '/cut':
      response.writeHead(200, { 'content-length': number('n', 100_000) })
      response.write(Buffer.alloc(number('n', 100_000) / 2))
      return setImmediate(() => response.destroy())
    case '/broken':
      return request.socket.end('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nno chunk\r\n')
    case '/silent':
      silent++
      return response.on('close', () => silent--)
    case '/waiting':
      return json(response, silent)
    case '/late': {
      const it = lateOf(url.searchParams.get('id'))
      it.asked++
      const body = Buffer.concat(await request.toArray()).toString()
      await it.released
      return json(response, { method: request.method, body, asked: it.asked })
    }
    case '/asked':
      return json(response, lateOf(url.searchParams.get('id')).asked)
    case '/release':
      return json(response, lateOf(url.searchParams.get('id')).release() ?? null)
    case '/basic': {
      const body = Buffer.concat(await request.toArray()).toString()
      const given = Buffer.from(/^Basic (.*)$/.exec(request.headers.authorization ?? '')?.[1] ?? '', 'base64').toString()
      if (given === 'ada:grün:1') return json(response, { method: request.method, body })
      response.writeHead(401, { 'www-authenticate': 'Basic realm="the \\"lab\\""', 'content-type': 'text/plain' })
      return response.end('not without a password\n')
    }
    case '/exit':
      return process.exit(1)
    case '/gone':
      return json(response, gone)
    case '/page':
      response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' })
      return response.end(url.searchParams.get('html'))
  }
  const file = FILES[url.pathname]
  if (!file) {
    response.writeHead(404, { 'content-type': 'text/plain' })
    return response.end('there is nothing here\n')
  }
  response.writeHead(200, { 'content-type': TYPES[file.split('.')[1]] })
  createReadStream(new URL(`static/${file}`, import.meta.url)).pipe(response)
})

const sockets = new WebSocketServer({ server, path: '/ws', handleProtocols: (offered) => (offered.has('echo') ? 'echo' : false) })
sockets.on('connection', (socket) => {
  socket.on('message', (message, binary) => {
    const close = binary ? null : /^close (\d+) ?(.*)$/.exec(message.toString())
    if (close) socket.close(Number(close[1]), close[2])
    else socket.send(message, { binary })
  })
})

server.listen(Number(process.argv[2]), '127.0.0.1')
process.on('SIGTERM', () => process.exit(0))
