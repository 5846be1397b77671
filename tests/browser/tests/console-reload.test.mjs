// The console while the node that serves it is down.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import { Browser } from '../harness/browser.mjs'
import { Cluster } from '../harness/cluster.mjs'

let cluster, browser, app, page

before(async () => {
  cluster = await Cluster.of(3)
  app = await cluster.deployApp('n2')
  browser = await Browser.start()
  browser.expectError('/favicon.ico')
  page = await browser.open(cluster.nodes[0].console)
})

after(async () => {
  await browser?.stop()
  await cluster?.stop()
})

/** Clicks `Open` in the list of services. */
async function open() {
  await page.evaluate(() => (location.hash = '#/services'))
  await page.getByRole('button', { name: `Open :${app.port} of shop/web` }).click()
}

test('an open console survives a reload, and says where a service can be opened', { timeout: 120_000 }, async () => {
  await page.fill('textarea', await cluster.userToken())
  await page.check('text=Remember in this tab')
  await page.click('text=Connect')
  await page.waitForSelector('.glance')
  await page.evaluate(() => navigator.serviceWorker.ready.then(() => {}))
  await cluster.nodes[0].kill()
  browser.expectError('ERR_CONNECTION_REFUSED')
  await page.reload()
  await page.waitForSelector('.glance')

  const pages = browser.context.pages().length
  await open()
  const said = await page.waitForSelector('.toast:has-text("Nothing answers at")')
  const other = cluster.nodes[1].console
  assert.match(await said.innerText(), /Run 'vc console' on this computer, or open the console of a node that runs on it/)
  assert.ok((await said.innerText()).includes(other), `it names ${other}`)
  assert.equal(browser.context.pages().length, pages, 'no window is left open')
})

test('a service that was opened before opens again', { timeout: 120_000 }, async () => {
  await cluster.nodes[0].start('run')
  await cluster.allUp()
  const opened = async () => {
    const [shown] = await Promise.all([browser.context.waitForEvent('page'), open()])
    await shown.waitForSelector('body[data-ready=yes]')
    return shown
  }
  const first = await opened()
  await first.close()
  await cluster.nodes[0].kill()
  await opened()
})
