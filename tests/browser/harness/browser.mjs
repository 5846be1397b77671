// Headless Chromium of the system, each time with a new profile.
import assert from 'node:assert/strict'
import { mkdirSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { chromium } from 'playwright-core'

import { ROOT } from './node.mjs'

/** The program. */
export const CHROMIUM = process.env.VC_CHROMIUM ?? '/usr/bin/chromium'
/** How Chromium runs without a screen, and without talking to its maker. */
export const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]
/** Chromium's coming default: a page cannot change its own ICE name any more. */
export const NO_MUNGING = '--force-fieldtrials=WebRTC-NoSdpMangleUfrag/Enabled/'
/** Where pictures of pages are kept. */
export const PICTURES = join(ROOT, 'target/browser')

export class Browser {
  #context
  #profile
  #complaints = []
  #announced = []

  /** @param {{flags?: string[], viewport?: {width: number, height: number}, colorScheme?: 'light'|'dark', isMobile?: boolean, executablePath?: string}} how */
  static async start({ flags = [], ...how } = {}) {
    const browser = new Browser()
    browser.#profile = await mkdtemp(join(tmpdir(), 'vc-chromium-'))
    browser.#context = await chromium.launchPersistentContext(browser.#profile, {
      executablePath: CHROMIUM,
      headless: true,
      args: [...FLAGS, ...flags],
      viewport: { width: 1280, height: 800 },
      ...how,
    })
    browser.#context.on('weberror', (error) => browser.#complaints.push(`uncaught: ${error.error().stack ?? error.error()}`))
    browser.#context.on('console', (message) => {
      if (message.type() === 'error') browser.#complaints.push(`console: ${message.text()} (${message.location().url})`)
    })
    return browser
  }

  get context() {
    return this.#context
  }

  /** A new page at this address. */
  async open(url) {
    const page = await this.#context.newPage()
    await page.goto(url)
    return page
  }

  /** Says before it happens that pages will complain with these words. */
  announce(words) {
    this.#announced.push(words)
  }

  /** Keeps a picture of a page. */
  async picture(page, name) {
    mkdirSync(PICTURES, { recursive: true })
    await page.screenshot({ path: join(PICTURES, `${name}.png`), fullPage: true })
  }

  /** Ends it. Errors: a page complained of something that was not announced. */
  async stop() {
    await this.#context.close()
    await rm(this.#profile, { recursive: true, force: true, maxRetries: 5 })
    const unexpected = this.#complaints.filter((line) => !this.#announced.some((words) => line.includes(words)))
    assert.deepEqual(unexpected, [], 'no page complained')
  }
}
