// Stock js-libp2p in a real Chromium dials a node, by version 1 of the WebRTC-direct handshake.
import assert from 'node:assert/strict'
import { createHmac, randomBytes } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { connect } from 'node:net'
import { join } from 'node:path'
import { after, before, test } from 'node:test'

import { Browser } from '../harness/browser.mjs'
import { Cluster } from '../harness/cluster.mjs'
import { bundleScript, serveScript } from '../harness/serve.mjs'

/** Interval of the library's connection monitor, milliseconds. */
const PING_INTERVAL = 200
/** Streams opened one after another: more than a connection may have open at once. */
const STREAMS = 100
/** Connections of a flood over each transport: more than a node admits of one address. */
const FLOOD = 600

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

/** Returns the connectivity check with which a client begins a connection (RFC 8489), signed as WebRTC-direct version 1 has it. */
function check(number) {
  const name = `libp2p+webrtc+v1/flood${number}`
  const username = Buffer.from(`${name}:${name}`)
  const attribute = Buffer.alloc(4 + Math.ceil(username.length / 4) * 4)
  attribute.writeUInt16BE(6)
  attribute.writeUInt16BE(username.length, 2)
  username.copy(attribute, 4)
  const head = Buffer.concat([Buffer.from([0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42]), randomBytes(12)])
  head.writeUInt16BE(attribute.length + 24, 2)
  const signed = Buffer.concat([head, attribute])
  return Buffer.concat([signed, Buffer.from([0, 8, 0, 20]), createHmac('sha1', name).update(signed).digest()])
}

test('a browser gets in while a flood of connections from its address is open', { timeout: 120_000 }, async () => {
  const [{ id, addresses }] = await cluster.rows('nodes')
  const { port } = cluster.nodes[0]
  const sockets = Array.from({ length: FLOOD }, () => connect(port, '127.0.0.1').on('error', () => {}))
  await Promise.all(sockets.map((socket) => once(socket, 'connect')))
  const udp = createSocket('udp4')
  for (let i = 0; i < FLOOD; i++) await new Promise((done) => udp.send(check(i), port + 1, '127.0.0.1', done))
  const address = addresses.find((it) => it.includes('/webrtc-direct/'))
  const begun = performance.now()
  const dialled = await page.evaluate(([address, every]) => stock.dial(address, every), [`${address}/p2p/${id}`, PING_INTERVAL])
  assert.equal(dialled, id)
  const { certificate } = await page.evaluate(() => stock.greet())
  console.log(`measured: a browser's handshake took ${Math.round(performance.now() - begun)} ms beside ${FLOOD} idle connections over TCP and WebRTC each`)
  assert.equal(JSON.parse(Buffer.from(certificate.split('.')[1], 'base64url')).sub, id)
  await page.evaluate(() => stock.stop())
  for (const socket of sockets) socket.destroy()
  udp.close()
})
