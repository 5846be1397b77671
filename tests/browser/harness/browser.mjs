// The system's Chromium, headless, with a fresh profile each time.
import assert from 'node:assert/strict'
import { mkdirSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { chromium } from 'playwright-core'

import { ROOT } from './node.mjs'

/** Path of the browser. */
export const CHROMIUM = process.env.VC_CHROMIUM ?? '/usr/bin/chromium'
/** Flags for a headless Chromium without background traffic. */
export const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]
/** Chromium's coming default: a page cannot change its ICE username fragment (SDP munging). */
export const NO_MUNGING = '--force-fieldtrials=WebRTC-NoSdpMangleUfrag/Enabled/'
/** Folder of screenshots. */
export const SCREENSHOTS = join(ROOT, 'target/browser')

export class Browser {
  #context
  #profile
  #errors = []
  #expected = []

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
    browser.#context.on('weberror', (error) => browser.#errors.push(`uncaught: ${error.error().stack ?? error.error()}`))
    browser.#context.on('console', (message) => {
      if (message.type() === 'error') browser.#errors.push(`console: ${message.text()} (${message.location().url})`)
    })
    return browser
  }

  get context() {
    return this.#context
  }

  /** Opens a new page at this address. */
  async open(url) {
    const page = await this.#context.newPage()
    await page.goto(url)
    return page
  }

  /** Declares that pages will log errors that contain these words. */
  expectError(words) {
    this.#expected.push(words)
  }

  /** Saves a screenshot of a page. */
  async screenshot(page, name) {
    mkdirSync(SCREENSHOTS, { recursive: true })
    await page.screenshot({ path: join(SCREENSHOTS, `${name}.png`), fullPage: true })
  }

  /** Closes the browser. Errors: a page logged an error that was not expected. */
  async stop() {
    await this.#context.close()
    await rm(this.#profile, { recursive: true, force: true, maxRetries: 5 })
    const unexpected = this.#errors.filter((line) => !this.#expected.some((words) => line.includes(words)))
    assert.deepEqual(unexpected, [], 'no page logged an error')
  }
}
