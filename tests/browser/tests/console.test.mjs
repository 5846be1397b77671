// The console in a real Chromium, served by a real node, on a cluster of three.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { readFile } from 'node:fs/promises'
import { after, before, describe, it } from 'node:test'

import { Browser } from '../harness/browser.mjs'
import { Cluster } from '../harness/cluster.mjs'

const AXE = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

/** Writes a line every 50 ms, and every sixth to standard error. */
const TALKER = `let n = 0; setInterval(() => ++n % 6 ? console.log('tick ' + n) : console.error('oops ' + n), 50)`

const compose = (replicas, variable) => `name: lab
services:
  talker:
    image: talker
    command: [${JSON.stringify(process.execPath)}, "-e", ${JSON.stringify(TALKER)}]
    environment: {GREETING: ${variable}}
    stop_grace_period: 1s
    deploy: {replicas: ${replicas}, update_config: {monitor: 1s}}
`

/** Each view, and what shows that it is there. */
const VIEWS = {
  '': '.nodes .row',
  services: '.services .row',
  'services/lab/talker': '.spec tr',
  'nodes/n1': '.node-facts dd',
  volumes: 'h1:text-is("Volumes")',
  'logs/lab/talker': '.line',
  events: 'h1:text-is("Events")',
  plan: '.placements .row',
  deploy: '.choose textarea',
}

let cluster, token

/** A page of the console at a node, signed in by a link. */
async function signedIn(browser, { node = cluster.nodes[0], as = token } = {}) {
  const page = await browser.open(`${node.console}#token=${as}`)
  await page.waitForSelector('.glance')
  return page
}

async function go(page, view) {
  await page.evaluate((view) => (location.hash = `#/${view}`), view)
  await page.waitForSelector(VIEWS[view] ?? 'h1')
}

/** What axe finds that is not minor. */
async function barriers(page) {
  await page.evaluate(AXE)
  const { violations } = await page.evaluate(() => axe.run(document))
  return violations
    .filter(({ impact }) => impact !== 'minor')
    .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 120)).join(' | ')}`)
}

/** Presses Tab until what has the focus is called this; with a bound, so that a trap is found out. */
async function tabTo(page, name) {
  const walked = []
  for (let presses = 0; presses < 80; presses++) {
    await page.keyboard.press('Tab')
    const focused = await page.evaluate(() => {
      const { activeElement: it } = document
      return it?.getAttribute('aria-label') ?? it?.textContent ?? ''
    })
    if (focused === name) return
    walked.push(focused)
  }
  assert.fail(`Tab does not reach '${name}', but ${walked.join(', ')}`)
}

/** Drops a file on the page as a person would. */
function drop(page, name, text) {
  return page.evaluate(
    ([name, text]) => {
      const dataTransfer = new DataTransfer()
      dataTransfer.items.add(new File([text], name))
      for (const type of ['dragenter', 'dragover', 'drop']) {
        document.body.dispatchEvent(new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }))
      }
    },
    [name, text],
  )
}

const service = async (name) => (await cluster.rows('services')).find((row) => row.service === name)

before(async () => {
  cluster = await Cluster.of(3)
  await cluster.deploy(compose(1, 'hello'))
  token = await cluster.userToken()
})

after(() => cluster?.stop())

describe('The sign-in', () => {
  let browser
  before(async () => (browser = await Browser.start()))
  after(() => browser?.stop())

  it('shows the user of a token before it is used, and the reason for an invalid one', async () => {
    const page = await browser.open(cluster.nodes[0].console)
    await page.fill('textarea', 'not a token')
    await page.waitForSelector('text=This is not a token')
    await page.fill('textarea', (await cluster.vc('token', 'create', '--node')).trim())
    await page.waitForSelector('text=This token is for nodes')
    await page.fill('textarea', token)
    await page.waitForSelector('text=For ada, admin, until')
    assert.deepEqual(await barriers(page), [])
    await page.keyboard.press('Enter')
    await page.waitForSelector('.glance')
    const kept = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }]))
    assert.equal(kept.includes(token), false, 'the token is not kept')
    await page.close()
  })

  it('removes the token from the address at once, and shows the cluster', async () => {
    const page = await signedIn(browser)
    assert.equal(page.url(), `${cluster.nodes[0].console}#/`)
    await page.close()
  })

  it('remembers the token where asked to, until the user signs out', async () => {
    const page = await browser.open(cluster.nodes[0].console)
    await page.fill('textarea', token)
    await page.check('text=Remember in this tab')
    await page.click('text=Connect')
    await page.waitForSelector('.glance')
    await page.reload()
    await page.waitForSelector('.glance')
    await page.click('[aria-label="Sign out"]')
    await page.waitForSelector('text=Your token')
    await page.reload()
    await page.waitForSelector('text=Your token')
    assert.equal(await page.inputValue('textarea'), '')
    await page.close()
  })

  it('asks before a link replaces the signed-in user, and shows the user of its token', async () => {
    const page = await signedIn(browser)
    const other = await cluster.userToken('viewer', 'vera')
    const follow = () => page.evaluate((token) => (location.hash = `#token=${token}`), other)
    await follow()
    const alert = page.locator('[role="alert"].banner')
    assert.match(await alert.textContent(), /The link contains a token of vera on the cluster .* You are signed in as ada on the cluster/)
    assert.equal(await page.inputValue('textarea'), other)
    assert.deepEqual(await barriers(page), [])
    await browser.screenshot(page, 'console-link')
    await page.click('text=Continue as ada')
    await page.waitForSelector('.glance')
    assert.match(await page.textContent('.top'), /ada/)
    await page.click('[aria-label="Drain n3"]')
    await page.waitForSelector('dialog')
    await follow()
    await page.click('text=Sign in with this token instead')
    await page.waitForSelector('.top:has-text("vera")')
    assert.equal(await page.locator('dialog').count(), 0, 'what was asked of one is not asked of the other')
    await page.close()
  })

  it('accepts a new token of the same user from a link without asking', async () => {
    const page = await signedIn(browser)
    await page.evaluate(() => document.querySelector('.glance').setAttribute('data-old', ''))
    await page.evaluate((token) => (location.hash = `#token=${token}`), await cluster.userToken())
    await page.waitForSelector('.glance:not([data-old])')
    await page.close()
  })
})

describe('The keyboard', () => {
  let browser, page
  before(async () => {
    browser = await Browser.start()
    page = await signedIn(browser)
  })
  after(() => browser?.stop())

  it('reaches every view by its key, and announces it', async () => {
    for (const [key, title] of [['s', 'Services'], ['l', 'Logs'], ['e', 'Events'], ['p', 'Plan'], ['d', 'Deploy']]) {
      await page.keyboard.press(key)
      await page.waitForSelector(`h1:text-is("${title}")`)
      // Both follow the view in an effect.
      await page.waitForFunction((title) => document.title.startsWith(title), title)
      await page.waitForFunction(() => document.activeElement?.id === 'main')
    }
    await page.keyboard.press('?')
    await page.waitForSelector('dialog h2:text-is("Keyboard shortcuts")')
    await page.keyboard.press('Escape')
    await page.keyboard.press('/')
    await page.keyboard.type('talker')
    await page.keyboard.press('Enter')
    await page.waitForSelector('h1:text-is("lab/talker")')
  })

  it('scales a service, and the view follows', async () => {
    await page.keyboard.press('s')
    await page.waitForSelector('.services .row')
    await tabTo(page, 'One more')
    await page.keyboard.press('Enter')
    assert.equal((await service('lab/talker')).replicas, 1, 'nothing happens before it is confirmed')
    await tabTo(page, 'Scale to 2')
    await page.keyboard.press('Enter')
    await page.waitForSelector('[role="status"] .toast')
    await page.waitForSelector('.service-slots:has-text("2 of 2")')
    assert.equal((await service('lab/talker')).replicas, 2)
    const focused = await page.evaluate(() => document.activeElement?.getAttribute('aria-label'))
    assert.equal(focused, 'One more', 'the focus does not go with the button')
  })

  it('keeps a draft with its service', async () => {
    await cluster.deploy(compose(1, 'hello').replace('name: lab', 'name: other'))
    await go(page, 'services/lab/talker')
    await page.fill('[aria-label="Desired replicas"]', '9')
    await go(page, 'services/other/talker')
    await page.waitForSelector('h1:text-is("other/talker")')
    assert.equal(await page.inputValue('[aria-label="Desired replicas"]'), '1')
    await cluster.vc('rm', 'other/talker')
  })

  it('drains a node after a confirmation that names it, and undrains it', async () => {
    await page.keyboard.press('o')
    await page.waitForSelector('.nodes .row')
    await tabTo(page, 'Drain n3')
    await page.keyboard.press('Enter')
    await page.waitForSelector('dialog:has-text("Drain n3?")')
    assert.deepEqual(await barriers(page), [])
    await page.keyboard.press('Escape')
    assert.equal(await page.evaluate(() => document.activeElement?.getAttribute('aria-label')), 'Drain n3', 'the focus is back')
    await page.keyboard.press('Enter')
    await page.waitForSelector('dialog')
    await tabTo(page, 'Drain n3')
    await page.keyboard.press('Enter')
    await page.waitForSelector('.row:has(h3 a:text-is("n3")) .status-badge:has-text("drain")')
    assert.equal((await cluster.rows('nodes')).find(({ name }) => name === 'n3').draining, true)
    await tabTo(page, 'Undrain n3')
    await page.keyboard.press('Enter')
    await page.waitForSelector('.row:has(h3 a:text-is("n3")) .status-badge:text-is("up")')
  })
})

describe('A deployment', () => {
  let browser, page
  before(async () => {
    browser = await Browser.start()
    page = await signedIn(browser)
  })
  after(() => browser?.stop())

  it('can be done with the keyboard, and the focus follows the steps', async () => {
    await go(page, 'deploy')
    await page.fill('.choose textarea', compose(2, 'goodbye'))
    for (const step of ['Dry run', 'Check again', 'Edit']) {
      await page.focus(`button:text-is("${step}")`)
      await page.keyboard.press('Enter')
      await page.waitForFunction(() => document.activeElement?.matches('h1'))
    }
  })

  it('starts with a file dropped on any view, shows a dry run, and is followed until it is available', async () => {
    await go(page, 'events')
    const { updated } = await service('lab/talker')
    await drop(page, 'compose.yaml', compose(2, 'goodbye'))
    await page.waitForSelector('.diff:has-text("lab/talker")')
    assert.match(await page.textContent('.diff'), /GREETING.*"hello" -> "goodbye"/)
    assert.match(await page.textContent('.side-by-side'), /lab\/talker\.1/)
    assert.equal((await service('lab/talker')).updated, updated, 'a dry run changes nothing')
    assert.deepEqual(await barriers(page), [])
    await page.click('button:text-is("Deploy")')
    await page.waitForSelector('.rollout-status .status-badge:text-is("Available")', { timeout: 60_000 })
    assert.match(await page.textContent('.rollout-status'), /2 of 2/)
    const { rollout } = await service('lab/talker')
    assert.equal(rollout.state, 'complete')
  })

  it('that is refused shows the reason, and changes nothing', async () => {
    await drop(page, 'broken.yaml', 'services:\n  web:\n    image: x\n    network_mode: macvlan\n')
    const alert = await page.waitForSelector('[role="alert"].banner')
    assert.match(await alert.textContent(), /network_mode/)
  })

  it('that fails shows the reason', async () => {
    await drop(page, 'compose.yaml', compose(1, 'x').replace('"-e"', '"-e", "process.exit(3)", "--"').replace('name: lab', 'name: broken'))
    await page.click('button:text-is("Deploy")')
    await page.waitForSelector('.rollout-status .status-badge:text-is("Failed")', { timeout: 60_000 })
    assert.match(await page.textContent('.rollout-status'), /code 3/)
    await cluster.vc('rm', 'broken/talker')
  })
})

describe('Logs and events', () => {
  let browser, page
  before(async () => {
    browser = await Browser.start()
    page = await signedIn(browser)
  })
  after(() => browser?.stop())

  it('lines are followed and filtered, and scrolling up pauses them', async () => {
    await go(page, 'logs/lab/talker')
    await page.waitForSelector('.line.err:has-text("oops")')
    await page.fill('input[type="search"]', 'oops')
    await page.waitForFunction(() => [...document.querySelectorAll('.line')].every((it) => it.textContent?.includes('oops')))
    await page.fill('input[type="search"]', '')
    await page.waitForFunction(() => document.querySelector('.lines').scrollHeight > 1200)
    await page.evaluate(() => (document.querySelector('.lines').scrollTop -= 300))
    await page.waitForSelector('button:has-text("new)")')
    const seen = await page.locator('.lines').innerText()
    const count = await page.locator('button:has-text("Jump to end")').innerText()
    await page.waitForFunction((count) => document.querySelector('.logs-foot button')?.textContent !== count, count)
    assert.equal(await page.locator('.lines').innerText(), seen)
    await page.click('button:has-text("Jump to end")')
    await page.waitForSelector('text=following')
  })

  it('events appear as they happen', async () => {
    await go(page, 'events')
    const before = await page.locator('.events .row').count()
    await cluster.vc('restart', 'lab/talker')
    await page.waitForFunction((before) => document.querySelectorAll('.events .row').length > before, before)
    await page.check('text=Errors')
    await page.waitForFunction(() => [...document.querySelectorAll('.events .status-badge')].every((it) => it.textContent === 'error'))
  })
})

describe('Every view', () => {
  for (const colorScheme of ['light', 'dark']) {
    it(`passes axe, ${colorScheme}`, async () => {
      const browser = await Browser.start({ colorScheme })
      const page = await signedIn(browser)
      for (const view of Object.keys(VIEWS)) {
        await go(page, view)
        assert.deepEqual(await barriers(page), [], view || 'overview')
        await browser.screenshot(page, `console-${colorScheme}-${view.replaceAll('/', '-') || 'overview'}`)
      }
      await browser.stop()
    })
  }

  it('fits on a phone', async () => {
    const browser = await Browser.start({ viewport: { width: 360, height: 780 }, isMobile: true })
    const page = await signedIn(browser)
    for (const view of Object.keys(VIEWS)) {
      await go(page, view)
      const width = await page.evaluate(() => document.documentElement.scrollWidth)
      assert.ok(width <= 360, `${view || 'overview'} is ${width} pixels wide`)
      await browser.screenshot(page, `console-phone-${view.replaceAll('/', '-') || 'overview'}`)
    }
    await browser.stop()
  })
})

describe('An action that the role does not allow', () => {
  it('is shown disabled, with the role it needs', async () => {
    const browser = await Browser.start()
    const page = await signedIn(browser, { as: await cluster.userToken('viewer', 'vera') })
    await go(page, 'services')
    const restart = page.locator('[aria-label="Restart lab/talker"]')
    assert.equal(await restart.getAttribute('aria-disabled'), 'true')
    const reason = await restart.evaluate((it) => document.getElementById(it.getAttribute('aria-describedby'))?.textContent)
    assert.match(reason, /role deployer; vera is viewer/)
    await restart.click({ force: true })
    assert.equal(await page.locator('dialog').count(), 0)
    assert.deepEqual(await barriers(page), [])
    await browser.stop()
  })

})

describe('When nodes die', () => {
  let browser, page
  before(async () => {
    browser = await Browser.start()
    page = await signedIn(browser)
  })
  after(() => browser?.stop())

  it('the view continues through another, and the topology shows the dead one', async () => {
    const attached = (await page.textContent('.link-node')).match(/n\d/)[0]
    await cluster.nodes.find(({ name }) => name === attached).kill()
    await page.waitForSelector(`.row:has(h3 a:text-is("${attached}")) .status-badge:text-is("down")`)
    assert.notEqual((await page.textContent('.link-node')).match(/n\d/)?.[0], attached)
    assert.equal(await page.locator('.edge.down').count(), 2)
    assert.match(await page.textContent('.problems'), new RegExp(`node ${attached} is down`))
  })

  it('and none is left, the last view stays, marked as stale, until one is back', async () => {
    const alive = cluster.nodes.filter(({ runs }) => runs)
    for (const node of alive) await node.kill()
    await page.waitForSelector('.banner:has-text("Connection lost")')
    assert.equal(await page.locator('.view.stale .nodes .row').count(), 3)
    const drain = page.locator('.nodes [aria-disabled="true"]').first()
    assert.equal(await drain.getAttribute('title'), 'Not connected to a node.')
    assert.deepEqual(await barriers(page), [])
    for (const node of alive) await node.start('run')
    await page.waitForSelector('.view:not(.stale)')
    assert.equal(await page.locator('.banner').count(), 0)
  })
})
