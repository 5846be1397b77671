// A client that changes networks, and loses all of them for a time: real interfaces, real routes.
import assert from 'node:assert/strict'
import { createInterface } from 'node:readline'
import { join } from 'node:path'
import { after, before, test } from 'node:test'

import { Browser, CHROMIUM } from '../harness/browser.mjs'
import { Cluster, until } from '../harness/cluster.mjs'
import { Network } from '../harness/network.mjs'
import { ROOT } from '../harness/node.mjs'

const WRITER = `let n = 0; setInterval(() => console.log('tick ' + ++n), 50)`

const APP = join(ROOT, 'tests/browser/app/server.mjs')
/** Bytes of a download over a path that loses packets. */
const LENGTH = 20_000_000

const compose = (replicas) => `name: lab
services:
  talker:
    image: talker
    command: [${JSON.stringify(process.execPath)}, "-e", ${JSON.stringify(WRITER)}]
    stop_grace_period: 1s
    deploy: {replicas: ${replicas}, update_config: {monitor: 1s}}
  web:
    image: app
    command: [${JSON.stringify(process.execPath)}, ${JSON.stringify(APP)}, "7080"]
    ports: ["7090:7080"]
    stop_grace_period: 1s
    deploy: {update_config: {monitor: 1s}}
`

let network, cluster, served, browser, page

before(async () => {
  network = await Network.make()
  await network.use('wifi')
  cluster = await Cluster.of(2, { within: network.atHome, listen: network.listen })
  await cluster.deploy(compose(1))
  served = cluster.spawnVc(network.onPhone, 'console', '--no-open')
  const [link] = await new Promise((done) => createInterface({ input: served.stdout }).once('line', (line) => done([line])))
  browser = await Browser.start({ executablePath: await network.chromium(CHROMIUM), viewport: { width: 390, height: 844 } })
  page = await browser.open(link)
  // The app has no favicon.
  browser.expectError('/favicon.ico')
  await page.waitForSelector('.glance')
})

after(async () => {
  await browser?.stop()
  served?.kill('SIGKILL')
  await cluster?.stop()
  await network?.remove()
})

/** Shows a view of the console. */
const show = (view) => page.evaluate((view) => (location.hash = `#/${view}`), view)

/** Scales the service, and waits until the page shows it. */
async function scaled(replicas) {
  await cluster.vc('scale', `lab/talker=${replicas}`)
  await page.waitForFunction((count) => document.querySelectorAll('.instances .row').length === count, replicas)
}

/** The numbers of the visible log lines. */
const ticks = () => page.evaluate(() => [...document.querySelectorAll('.line')].map((line) => Number(/tick (\d+)/.exec(line.textContent)?.[1])))

/** Waits until the page shows a line written after now; the visible lines have no gaps and no duplicates. */
async function linesContinue() {
  const before = (await ticks()).at(-1) ?? 0
  const shown = await until('another line', async () => {
    const shown = await ticks()
    assert.ok(shown.at(-1) > before)
    return shown
  })
  assert.deepEqual(shown, shown.map((_, index) => shown[0] + index))
}

/** Changes the network and waits for `seen`. */
async function moves(to, seen) {
  const begun = Date.now()
  await network.use(to)
  await seen()
  console.log(`measured: live over ${to} after ${Date.now() - begun} ms`)
}

test('the view continues over another network', { timeout: 60_000 }, async () => {
  await show('services/lab/talker')
  await scaled(2)
  await moves('mobile', () => scaled(1))
})

test('a followed log continues over another network, without gaps', { timeout: 60_000 }, async () => {
  await show('logs/lab/talker')
  await linesContinue()
  await moves('wifi', linesContinue)
})

test('the view is live again after a time without any network', { timeout: 60_000 }, async () => {
  await show('services/lab/talker')
  await network.use(null)
  // By then dials are pending that will never be answered.
  await page.waitForSelector('.banner.warn:has-text("Connection lost")')
  await cluster.vc('scale', 'lab/talker=2')
  await moves('mobile', () => scaled(3))
})

test('downloads over a lossy network arrive intact', { timeout: 120_000 }, async () => {
  await show('services')
  const [app] = await Promise.all([
    browser.context.waitForEvent('page'),
    page.getByRole('button', { name: 'Open :7090 of lab/web' }).click(),
  ])
  await app.waitForSelector('body[data-ready=yes]')
  await network.lose(2)
  const got = await app.evaluate(async (length) => {
    const digest = async () => {
      const bytes = await (await fetch(`/bytes?n=${length}`)).arrayBuffer()
      const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))
      return [...digest].map((byte) => byte.toString(16).padStart(2, '0')).join('')
    }
    const begun = performance.now()
    const digests = await Promise.all([digest(), digest()])
    const took = performance.now() - begun
    return { digests, took, right: await (await fetch(`/digest?n=${length}`)).json() }
  }, LENGTH)
  await network.lose(0)
  assert.deepEqual(got.digests, [got.right, got.right])
  console.log(`measured: ${((2 * LENGTH) / 1000 / got.took).toFixed(1)} MB/s at 2 % packet loss each way`)
})
