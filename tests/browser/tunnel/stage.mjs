// Set-up of the tunnel tests: a cluster with apps, a console that opens them, a browser. Importing it registers the hooks.
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { join } from 'node:path'
import { after, afterEach, before, beforeEach, test } from 'node:test'
import { chromium } from 'playwright-core'

import { CHROMIUM, FLAGS } from '../harness/browser.mjs'
import { Cluster } from '../harness/cluster.mjs'
import { ROOT } from '../harness/node.mjs'
import { freePort } from '../harness/ports.mjs'
import { site } from './site.mjs'

const APP = join(ROOT, 'tests/browser/app/server.mjs')

/** Bytes of the large download. */
export const LARGE = Number(process.env.VC_DOWNLOAD ?? 100_000_000)
/** A test with a timeout of two minutes; the longest moves `LARGE` bytes. */
export const browserTest = (name, act) => test(name, { timeout: 120_000 }, act)

export let served
export let cluster
let browser
export let context
export let console_

/** Deploys `shop/web` on one node, `shop/api` on the other, and `shop/down`, which runs but accepts no connection. */
export async function deployApps(cluster) {
  const service = async (name, node, ...command) => {
    const target = await freePort()
    const words = JSON.stringify([process.execPath, ...command.map((word) => word.replace('PORT', target))])
    return `  ${name}:
    image: app
    command: ${words}
    ports: ["${await freePort()}:${target}"]
    stop_grace_period: 1s
    deploy: {update_config: {monitor: 500ms}, placement: {constraints: [node.name == ${node}]}}
`
  }
  const services = [
    await service('web', 'n1', APP, 'PORT', 'web'),
    await service('api', cluster.nodes.at(-1).name, APP, 'PORT', 'api'),
    await service('down', 'n1', '-e', 'setInterval(() => {}, 60000)'),
  ]
  await cluster.deploy(`name: shop\nservices:\n${services.join('')}`)
}

export async function signedIn(cluster) {
  const page = await context.newPage()
  await page.goto(served.origin)
  await page.evaluate((token) => window.signIn(token), await cluster.userToken('viewer'))
  return page
}

before(async () => {
  served = await site()
  cluster = await Cluster.of(2)
  await deployApps(cluster)
  browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS })
})
after(async () => {
  await browser?.close()
  served?.close()
  await cluster?.stop()
})
beforeEach(async () => {
  context = await browser.newContext({ acceptDownloads: true })
  console_ = await signedIn(cluster)
})
afterEach(() => context.close())

/** Clicks `Open` and returns the app's page once it shows the app. */
export async function open(service = 'shop/web', page = console_) {
  const [app] = await Promise.all([context.waitForEvent('page'), page.click(`[data-service="${service}"]`)])
  await app.waitForSelector('body[data-ready=yes]')
  return app
}

/** Fetches JSON of the app from inside a page. */
export const json = (page, path, init) => page.evaluate(async ([path, init]) => (await fetch(path, init)).json(), [path, init])

/** Returns the SHA-256 of the `length` bytes that the upload sends. */
export function digestOf(length) {
  const content = Buffer.alloc(length, 'a stone that rolls ')
  return createHash('sha256').update(content).digest('hex')
}

export const sha256OfFile = async (path) => {
  const hash = createHash('sha256')
  for await (const piece of createReadStream(path)) hash.update(piece)
  return hash.digest('hex')
}

/** Stops every service worker, as a browser does with an idle one. */
export async function stopServiceWorkers(page) {
  const session = await context.newCDPSession(page)
  const stopped = new Promise((done) => {
    session.on('ServiceWorker.workerVersionUpdated', ({ versions }) => {
      if (versions.some(({ runningStatus }) => runningStatus === 'stopped')) done()
    })
  })
  await session.send('ServiceWorker.enable')
  await session.send('ServiceWorker.stopAllWorkers')
  await stopped
  await session.detach()
}
