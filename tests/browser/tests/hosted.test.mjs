// The console's files on an https host that has nothing to do with the cluster, as people put them on one for a phone.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:https'
import { tmpdir } from 'node:os'
import { extname, join } from 'node:path'
import { after, before, test } from 'node:test'

import { Browser } from '../harness/browser.mjs'
import { Cluster } from '../harness/cluster.mjs'
import { ROOT } from '../harness/node.mjs'

const DIST = join(ROOT, 'node/console/dist')
const HOST = 'console.example.org'
const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.json': 'application/json' }
const BOOT_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; worker-src 'self'; base-uri 'none'; " +
  "form-action 'none'; frame-ancestors 'none'"

let cluster, browser, app, server, keys, origin

/** A static host, by the rules of node/console/tunnel/README.md: the console at one name, apps at a wildcard. */
async function host() {
  keys = await mkdtemp(join(tmpdir(), 'vc-https-'))
  const [key, cert] = [join(keys, 'key.pem'), join(keys, 'cert.pem')]
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2',
    '-subj', `/CN=${HOST}`, '-keyout', key, '-out', cert], { stdio: 'ignore' })
  const made = createServer({ key: await readFile(key), cert: await readFile(cert) }, async (request, response) => {
    const name = request.headers.host.replace(/:\d+$/, '')
    const { pathname } = new URL(request.url, origin)
    const isApp = name.endsWith('.apps.example.org')
    const file = isApp ? (pathname.startsWith('/__vc/') ? `tunnel/${pathname.slice(6)}` : 'tunnel/boot.html') : pathname.replace(/\/$/, '/index.html')
    const port = server.address().port
    const config = {
      'tunnel/console.json': { consoleOrigin: `https://${HOST}:${port}` },
      '/console.json': { appsOrigin: `https://{app}.apps.example.org:${port}` },
    }[file]
    const content = config ? JSON.stringify(config) : await readFile(join(DIST, file)).catch(() => null)
    const headers = { 'content-type': TYPES[extname(file)] ?? 'text/plain', 'cache-control': 'no-store' }
    if (file.endsWith('boot.html')) headers['content-security-policy'] = BOOT_POLICY
    if (file.endsWith('sw.js')) headers['service-worker-allowed'] = '/'
    response.writeHead(content === null ? 404 : 200, headers)
    response.end(content)
  })
  made.listen(0, '127.0.0.1')
  await once(made, 'listening')
  return made
}

before(async () => {
  server = await host()
  origin = `https://${HOST}:${server.address().port}`
  cluster = await Cluster.of(2)
  app = await cluster.deployApp('n2')
  browser = await Browser.start({
    flags: ['--host-resolver-rules=MAP *.example.org 127.0.0.1', '--ignore-certificate-errors'],
    viewport: { width: 390, height: 844 },
    isMobile: true,
    hasTouch: true,
  })
  browser.announce('/favicon.ico')
})

after(async () => {
  await browser?.stop()
  await cluster?.stop()
  server?.closeAllConnections()
  server?.close()
  if (keys) await rm(keys, { recursive: true })
})

test('a phone with a link sees the cluster, and opens a service, from files on any https host', { timeout: 90_000 }, async () => {
  const token = (await cluster.vc('token', 'create', '--user', 'phone', '--role', 'viewer', '--ttl', '12h', '--browser')).trim()
  const page = await browser.open(`${origin}/#token=${token}`)
  await page.waitForSelector('.glance')
  assert.equal(await page.evaluate(() => location.hash.includes('token')), false)
  await page.evaluate(() => (location.hash = '#/services'))
  const [opened] = await Promise.all([
    browser.context.waitForEvent('page'),
    page.getByRole('button', { name: `Open :${app.port} of shop/web` }).click(),
  ])
  await opened.waitForSelector('body[data-ready=yes]')
  assert.match(new URL(opened.url()).hostname, /^web--shop--[a-z0-9]+\.apps\.example\.org$/)
  const size = await opened.evaluate(async () => (await (await fetch('/bytes?n=100000')).arrayBuffer()).byteLength)
  assert.equal(size, 100_000)
  await browser.picture(opened, 'hosted-phone-app')
})
