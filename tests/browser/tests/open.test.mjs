// A service opened from the console that a node serves, from the click to the app.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import { Browser } from '../harness/browser.mjs'
import { Cluster } from '../harness/cluster.mjs'

let cluster, browser, app

before(async () => {
  cluster = await Cluster.of(2)
  // The browser attaches to one node, the instance is on the other.
  app = await cluster.deployApp('n2')
  browser = await Browser.start()
  // The app has no favicon.
  browser.expectError('/favicon.ico')
})

after(async () => {
  await browser?.stop()
  await cluster?.stop()
})

test('a viewer opens a service from the console, at an isolated origin', { timeout: 60_000 }, async () => {
  const token = await cluster.userToken('viewer', 'eve')
  const console_ = await browser.open(`${cluster.nodes[0].console}#token=${token}`)
  await console_.waitForSelector('.glance')
  await console_.evaluate(() => (location.hash = '#/services'))
  const [page] = await Promise.all([
    browser.context.waitForEvent('page'),
    console_.getByRole('button', { name: `Open :${app.port} of shop/web` }).click(),
  ])
  await page.waitForSelector('body[data-ready=yes]')
  assert.match(new URL(page.url()).hostname, /^web--shop--[a-z0-9]+\.localhost$/)

  const received = await page.evaluate(async () => {
    const socket = new WebSocket(`ws://${location.host}/ws`)
    await new Promise((opened, failed) => Object.assign(socket, { onopen: opened, onerror: failed }))
    const answer = new Promise((said) => (socket.onmessage = ({ data }) => said(data)))
    socket.send('over the mesh')
    const bytes = await (await fetch('/bytes?n=1000000')).arrayBuffer()
    const digest = [...new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))]
    return {
      socket: await answer,
      digest: digest.map((byte) => byte.toString(16).padStart(2, '0')).join(''),
      opener: window.opener,
      kept: [...Object.entries(localStorage), ...Object.entries(sessionStorage)],
      address: location.href,
    }
  })
  assert.equal(received.socket, 'over the mesh')
  assert.equal(received.digest, await (await fetch(`${app.direct}/digest?n=1000000`)).json())
  assert.equal(received.opener, null, 'the app cannot reach the console')
  const secret = token.split('.')[2]
  assert.ok(!JSON.stringify(received).includes(secret), 'the token does not leak to the app')
  assert.ok(!(await console_.evaluate(() => location.href)).includes(secret), 'the token is not in the address of the console')
})

test('a window whose first message to the console is lost opens', { timeout: 60_000 }, async () => {
  const console_ = await browser.open(`${cluster.nodes[0].console}#token=${await cluster.userToken('viewer', 'eve')}`)
  await console_.waitForSelector('.glance')
  await console_.evaluate(() => {
    location.hash = '#/services'
    const lose = (event) => {
      if (!event.data?.vcHello) return
      event.stopImmediatePropagation()
      window.removeEventListener('message', lose)
      window.lost = true
    }
    window.addEventListener('message', lose)
  })
  const [page] = await Promise.all([
    browser.context.waitForEvent('page'),
    console_.getByRole('button', { name: `Open :${app.port} of shop/web` }).click(),
  ])
  await page.waitForSelector('body[data-ready=yes]')
  assert.equal(await console_.evaluate(() => window.lost), true)
})
