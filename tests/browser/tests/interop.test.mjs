// Stock js-libp2p in a real Chromium dials a node, by version 1 of the WebRTC-direct handshake.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, test } from 'node:test'

import { Browser } from '../harness/browser.mjs'
import { Cluster } from '../harness/cluster.mjs'
import { bundleScript, serveScript } from '../harness/serve.mjs'

/** Interval of the library's connection monitor, milliseconds. */
const PING_INTERVAL = 200
/** Streams opened one after another: more than a connection may have open at once. */
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

test('stock js-libp2p dials a node, opens and closes streams, and its pings are answered', { timeout: 60_000 }, async () => {
  const [{ id, addresses }] = await cluster.rows('nodes')
  const address = addresses.find((it) => it.includes('/webrtc-direct/'))
  const dialled = await page.evaluate(([address, every]) => stock.dial(address, every), [`${address}/p2p/${id}`, PING_INTERVAL])
  assert.equal(dialled, id, 'Noise proves the peer id')
  for (let i = 0; i < STREAMS; i++) {
    const { certificate } = await page.evaluate(() => stock.greet())
    assert.equal(JSON.parse(Buffer.from(certificate.split('.')[1], 'base64url')).sub, id)
  }
  await page.waitForFunction(() => stock.pings() > 2)
  assert.equal(await page.evaluate(() => stock.status()), 'open')
  await page.evaluate(() => stock.stop())
})
