// The console's files on an https host outside of the cluster, as for a phone.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'

import { Browser } from '../harness/browser.mjs'
import { Cluster } from '../harness/cluster.mjs'
import { CONSOLE, serve } from '../harness/serve.mjs'
import { answerApp, send } from '../harness/static-host.mjs'

const DIST = join(CONSOLE, 'dist')
const HOST = 'console.example.org'

let cluster, browser, app, server, keys, origin

/** A key and a certificate in PEM, for the days of a test. */
async function credentials() {
  const [key, cert] = [join(keys, 'key.pem'), join(keys, 'cert.pem')]
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2',
    '-subj', `/CN=${HOST}`, '-keyout', key, '-out', cert], { stdio: 'ignore' })
  return { key: await readFile(key), cert: await readFile(cert) }
}

const inDist = (name) => readFile(join(DIST, name)).catch(() => null)

/** The console at one name, apps at a wildcard, each told of the other by a file of the host's. */
async function host() {
  const made = createServer(await credentials(), async (request, response) => {
    const own = `:${server.port}`
    if (request.headers.host.replace(own, '').endsWith('.apps.example.org')) {
      const toConsole = JSON.stringify({ consoleOrigin: `https://${HOST}${own}` })
      return answerApp(request, response, (name) => (name === 'console.json' ? toConsole : inDist(`tunnel/${name}`)))
    }
    const file = new URL(request.url, origin).pathname.replace(/\/$/, '/index.html').slice(1)
    const toApps = JSON.stringify({ appsOrigin: `https://{app}.apps.example.org${own}` })
    send(response, file, file === 'console.json' ? toApps : await inDist(file))
  })
  return serve(made)
}

before(async () => {
  keys = await mkdtemp(join(tmpdir(), 'vc-https-'))
  server = await host()
  origin = `https://${HOST}:${server.port}`
  cluster = await Cluster.of(2)
  app = await cluster.deployApp('n2')
  browser = await Browser.start({
    flags: ['--host-resolver-rules=MAP *.example.org 127.0.0.1', '--ignore-certificate-errors'],
    viewport: { width: 390, height: 844 },
    isMobile: true,
    hasTouch: true,
  })
  browser.expectError('/favicon.ico')
})

after(async () => {
  await browser?.stop()
  await cluster?.stop()
  server?.close()
  if (keys) await rm(keys, { recursive: true })
})

test('a page on any https host shows the cluster and opens a service', { timeout: 90_000 }, async () => {
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
  await browser.screenshot(opened, 'hosted-phone-app')
})
