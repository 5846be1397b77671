// The console's page alone, on a fake mesh: states that no real node produces.
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { after, before, test } from 'node:test'

import { Browser } from '../harness/browser.mjs'
import { CONSOLE, bundle, serve } from '../harness/serve.mjs'
import { send } from '../harness/static-host.mjs'

let browser, server, page

/** A token that the fake mesh accepts. */
function token() {
  const peers = ['/ip4/127.0.0.1/udp/1/webrtc-direct/certhash/uEi/p2p/12D3']
  const claims = { sub: 'ada', aud: 'C1', exp: 4_000_000_000, scope: { user: 'admin' }, peers }
  return `e30.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.c2ln`
}

before(async () => {
  const made = await bundle({ configFile: join(CONSOLE, 'test/vite.config.ts'), root: CONSOLE })
  const files = new Map(made.map(({ fileName, code, source }) => [fileName, code ?? source]))
  server = await serve(
    createServer((request, response) => {
      const file = new URL(request.url, 'http://page').pathname.replace(/\/$/, '/index.html').slice(1)
      send(response, file, files.get(file) ?? null)
    }),
  )
  browser = await Browser.start()
  page = await browser.open(`http://127.0.0.1:${server.port}/#token=${token()}`)
  await page.waitForSelector('.glance')
})

after(async () => {
  await browser?.stop()
  server?.close()
})

test('a view that fails to render says so, and recovers once it can render', async () => {
  browser.expectError('Cannot convert undefined or null')
  await page.evaluate(() => {
    const { fakeMesh } = globalThis
    globalThis.good = fakeMesh.view
    fakeMesh.show({ ...fakeMesh.view, nodes: [{ ...fakeMesh.view.nodes[0], labels: null }] })
  })
  await page.waitForSelector('h1:text-is("This page cannot be shown")')
  assert.match(await page.textContent('[role="alert"]'), /Cannot convert undefined or null/)
  assert.equal(await page.locator('button:text-is("Reload")').count(), 1)
  await browser.screenshot(page, 'console-error')
  await page.evaluate(() => globalThis.fakeMesh.show(globalThis.good))
  await page.click('button:text-is("Try again")')
  await page.waitForSelector('.glance')
  await page.evaluate(() => (location.hash = '#/services'))
  await page.waitForSelector('.services .row')
})

test('volumes show their copies, how far the first one is, and what is wrong', async () => {
  await page.evaluate(() => (location.hash = '#/volumes'))
  await page.waitForSelector('.volumes .row')
  const rows = await page.locator('.volumes > .row').allInnerTexts()
  assert.deepEqual(rows.map((it) => it.split('\n')[0].trim()), ['lab/series', 'shop/data', 'shop/files'])
  assert.match(rows[0], /gamma: no space left/)
  assert.match(rows[0], /1 conflict: .*vc volume conflicts lab\/series/s)
  assert.match(rows[1], /beta\s+6s behind/)
  assert.match(rows[2], /alpha\s+copying 45 %/)
  await browser.screenshot(page, 'console-volumes')
})

test('a volume is restored to a snapshot, after a confirmation', async () => {
  await page.evaluate(() => (location.hash = '#/volumes'))
  const volume = page.locator('.volumes > .row', { hasText: 'shop/data' })
  await volume.locator('summary').click()
  const rows = volume.locator('.snapshots li')
  await rows.nth(2).waitFor()
  assert.match(await rows.nth(0).innerText(), /ago 3-42, 12 files, 2 GiB/)
  assert.match(await rows.nth(2).innerText(), /2-7, .* kept aside as a conflict/)
  await browser.screenshot(page, 'console-snapshots')
  await rows.nth(1).getByRole('button').click()
  assert.match(await page.innerText('dialog'), /scale its services to 0 first/)
  await page.click('dialog button:text-is("Restore")')
  await page.waitForFunction(() => globalThis.fakeMesh.requests.at(-1).op === 'restore_volume')
  const { snapshot } = await page.evaluate(() => globalThis.fakeMesh.requests.at(-1))
  assert.deepEqual(snapshot, { epoch: 3, number: 41 })
})

test('a node and its instances show what they use, as it was measured', async () => {
  await page.evaluate(() => (location.hash = '#/nodes/alpha'))
  await page.waitForSelector('h1:text-is("alpha")')
  // Two measurements make a line.
  await page.waitForFunction(() => / .* /.test(document.querySelector('.usage-lines polyline')?.getAttribute('points') ?? ''))
  const text = await page.innerText('main')
  for (const part of [/Disk\s+12 GiB used of 40 GiB/, /shop\/data\s+primary/, /shop\/web:1.5.0/, /disk=ssd, room=attic/, /within 2 s of the attached node/]) {
    assert.match(text, part)
  }
  await browser.screenshot(page, 'console-node')
  await page.evaluate(() => (location.hash = '#/services/shop/web'))
  await page.waitForSelector('.instances .usage-lines')
  await browser.screenshot(page, 'console-service')
})

test('the shown lines of a log are downloaded', async () => {
  await page.evaluate(() => (location.hash = '#/logs/shop/web'))
  await page.waitForSelector('.line')
  await page.check('text=Only stderr')
  await page.waitForFunction(() => document.querySelectorAll('.line:not(.err)').length === 0)
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('text=Download')])
  assert.match(download.suggestedFilename(), /^shop-web-[\dT-]+\.log$/)
  const lines = (await readFile(await download.path(), 'utf8')).trimEnd().split('\n')
  assert.ok(lines.length > 10 && lines.every((line) => /^\S+Z \d stderr WARN slow query: \d+ ms$/.test(line)), lines[0])
})

test('a shell runs in a terminal, and says how it ended', async () => {
  await page.evaluate(() => (location.hash = '#/services/shop/web'))
  await page.click('[aria-label="Shell in shop/web.1"]')
  await page.waitForSelector('.xterm-rows:has-text("root@web:/#")')
  await page.keyboard.type('uptime')
  await page.waitForSelector('.xterm-rows:has-text("uptime")')
  const colour = await page.evaluate(() => {
    const prompt = [...document.querySelectorAll('.xterm-rows span')].find((it) => it.textContent.includes('root'))
    return getComputedStyle(prompt).color !== getComputedStyle(document.querySelector('.shell')).color
  })
  assert.equal(colour, true, 'the rules of the emulator apply under the policy of the page')
  await browser.screenshot(page, 'console-terminal')
  await page.keyboard.type('exit')
  await page.keyboard.press('Enter')
  await page.waitForSelector('text=The shell has ended with code 3.')
  const { service, replica, tty } = await page.evaluate(() => globalThis.fakeMesh.requests.findLast(({ op }) => op === 'exec'))
  assert.deepEqual([service, replica, tty], ['shop/web', 1, true])
})

test('the pages of nodes and shells fit on a phone, also in the dark', async () => {
  await page.emulateMedia({ colorScheme: 'dark' })
  await page.setViewportSize({ width: 390, height: 844 })
  for (const [view, shown] of [
    ['nodes/alpha', '.usage-lines polyline'],
    ['services/shop/web', '.usage-lines polyline'],
    ['terminal/shop/web/1', '.xterm-rows:has-text("root@web")'],
  ]) {
    await page.evaluate((view) => (location.hash = `#/${view}`), view)
    await page.waitForSelector(shown)
    const { width, all } = await page.evaluate(() => ({ width: innerWidth, all: document.documentElement.scrollWidth }))
    assert.equal(all, width, `${view} does not scroll sideways`)
    await browser.screenshot(page, `console-phone-${view.split('/')[0]}`)
  }
})
