// Any js-libp2p can dial a node: the library as it comes, in a real Chromium, by the handshake that it knows.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, test } from 'node:test'

import { Browser } from '../harness/browser.mjs'
import { Cluster } from '../harness/cluster.mjs'
import { bundleScript, serveScript } from '../harness/serve.mjs'

/** How often the library asks whether the connection is alive, milliseconds. */
const PING_INTERVAL = 200
/** More streams than a connection may have open, one after another. */
const STREAMS = 100

let cluster, browser, page, server

before(async () => {
  server = await serveScript(await bundleScript(join(import.meta.dirname, '../interop-page.js')))
  cluster = await Cluster.of(1)
  browser = await Browser.start()
  page = await browser.open(server.url)
})

after(async () => {
  await browser?.stop()
  await cluster?.stop()
  server?.close()
})

test('js-libp2p as it comes dials a node, opens and closes streams, and finds the connection alive', { timeout: 60_000 }, async () => {
  const [{ id, addresses }] = await cluster.rows('nodes')
  const address = addresses.find((it) => it.includes('/webrtc-direct/'))
  const dialled = await page.evaluate(([address, every]) => stock.dial(address, every), [`${address}/p2p/${id}`, PING_INTERVAL])
  assert.equal(dialled, id, 'Noise has shown who it is')
  const begun = Date.now()
  for (let i = 0; i < STREAMS; i++) {
    const { certificate } = await page.evaluate(() => stock.greet())
    assert.equal(JSON.parse(Buffer.from(certificate.split('.')[1], 'base64url')).sub, id)
  }
  assert.ok(Date.now() - begun > 2 * PING_INTERVAL, 'the library has asked more than once')
  assert.equal(await page.evaluate(() => stock.status()), 'open')
  await page.evaluate(() => stock.stop())
})
