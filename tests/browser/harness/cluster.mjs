// A cluster of nodes, and `vc` against any of them.
import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { readFileSync, readdirSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

import { BIN, Node, ROOT, environment } from './node.mjs'
import { freePort } from './ports.mjs'

const APP = join(ROOT, 'tests/browser/app/server.mjs')
/** Milliseconds after which `until` fails. */
const TIMEOUT = 30_000

/** Polls until `question` succeeds, for state that no event announces. */
export async function until(what, question, timeout = TIMEOUT) {
  const end = Date.now() + timeout
  for (;;) {
    try {
      return await question()
    } catch (error) {
      if (Date.now() > end) throw new Error(`not within ${timeout} ms: ${what}`, { cause: error })
      await new Promise((done) => setTimeout(done, 50))
    }
  }
}

/** Returns the Compose file of the app of `app/server.mjs` at these ports, on the node of this name or on any. */
export function appAt(target, published, node) {
  const where = node ? `, placement: {constraints: [node.name == ${node}]}` : ''
  return `name: shop
services:
  web:
    image: app
    command: [${JSON.stringify(process.execPath)}, ${JSON.stringify(APP)}, "${target}"]
    ports: ["${published}:${target}"]
    stop_grace_period: 1s
    deploy: {update_config: {monitor: 500ms}${where}}
`
}

export class Cluster {
  nodes = []
  #expected = []
  #root

  #where

  constructor(root, where) {
    this.#root = root
    this.#where = where
  }

  /** Starts `count` servers `n1`, `n2`, … and waits until all are up; `where`: options of each `Node`. */
  static async of(count, where) {
    const cluster = new Cluster(await mkdtemp(join(tmpdir(), 'vc-browser-')), where)
    try {
      await cluster.#add('init')
      const token = () => cluster.vc('token', 'create', '--node', '--role', 'server')
      for (let i = 1; i < count; i++) await cluster.#add('join', (await token()).trim())
      await cluster.allUp()
    } catch (error) {
      await cluster.stop({ failed: true })
      throw error
    }
    return cluster
  }

  async #add(...how) {
    const node = new Node(this.#root, `n${this.nodes.length + 1}`, await freePort(), this.#where)
    this.nodes.push(node)
    await node.start(...how)
  }

  /** A running node. */
  get #any() {
    return this.nodes.find((node) => node.runs)
  }

  /** Runs `vc` as the admin against a running node and returns its output. */
  async vc(...args) {
    const [program, words, options] = this.#command(this.#any.within, args)
    return (await promisify(execFile)(program, words, options)).stdout
  }

  /** Starts a long-running `vc` in the network of `within`. */
  spawnVc(within, ...args) {
    const [program, words, options] = this.#command(within, args)
    return spawn(program, words, { ...options, stdio: ['ignore', 'pipe', 'inherit'] })
  }

  #command(within, args) {
    const token = join(this.nodes[0].dir, 'admin.token')
    const config = { XDG_CONFIG_HOME: join(this.#root, 'config'), XDG_STATE_HOME: join(this.#root, 'state') }
    const [program, ...words] = [...within, join(BIN, 'vc'), '--token', token, '--peer', this.#any.address, ...args]
    return [program, words, { env: environment(config) }]
  }

  /** Runs `vc --output json` and returns the parsed output. */
  async rows(...args) {
    return JSON.parse(await this.vc('--output', 'json', ...args))
  }

  /** Returns a token for a browser. */
  async userToken(role = 'admin', name = 'ada') {
    return (await this.vc('token', 'create', '--user', name, '--role', role)).trim()
  }

  /** Waits until the cluster reports the true state of every node. */
  async allUp() {
    await until('every node is known to be up or down', async () => {
      const rows = await this.rows('nodes')
      const reported = Object.fromEntries(rows.map(({ name, state }) => [name, state]))
      const truth = Object.fromEntries(this.nodes.map(({ name, runs }) => [name, runs ? 'up' : 'down']))
      assert.deepEqual(reported, truth)
    })
  }

  /** Deploys a Compose file's text, and waits until all of it runs. */
  async deploy(text) {
    const file = join(this.#root, 'compose.yaml')
    await writeFile(file, text)
    await this.vc('deploy', file, '--wait', '--timeout', '60s')
  }

  /**
   * Deploys the app of `app/server.mjs` as `shop/web`, one instance, on the node of this name or on any.
   * @returns {Promise<{port: number, direct: string}>} the port that it publishes, and its address without the mesh
   */
  async deployApp(node) {
    const [published, target] = [await freePort(), await freePort()]
    await this.deploy(appAt(target, published, node))
    const direct = `http://127.0.0.1:${target}`
    await until('the app answers', () => fetch(`${direct}/status`))
    return { port: published, direct }
  }

  /** Declares that nodes will log errors that contain these words. */
  expectError(words) {
    this.#expected.push(words)
  }

  /** Ends everything. Errors: a node logged an unexpected error, or a token. */
  async stop({ failed = false } = {}) {
    for (const node of this.nodes.filter(({ runs }) => runs)) await node.kill()
    this.#killInstances()
    const errors = (await Promise.all(this.nodes.map((node) => this.#loggedErrors(node)))).flat()
    if (failed || errors.length > 0) for (const node of this.nodes) console.error(`--- ${node.name}:\n${node.lastLines(25)}`)
    await rm(this.#root, { recursive: true, force: true })
    if (!failed) assert.deepEqual(errors, [], 'the logs are clean')
  }

  async #loggedErrors(node) {
    const lines = (await readFile(node.log, 'utf8')).split('\n').filter(Boolean)
    return lines.flatMap((line) => {
      if (/eyJ0eXAi|eyJhbGci|\.eyJ/.test(line)) return [`${node.name} logged a token (not repeated here)`]
      const level = (() => {
        try {
          return JSON.parse(line).level
        } catch {
          return 'not JSON'
        }
      })()
      const fine = ['TRACE', 'DEBUG', 'INFO', 'WARN'].includes(level) && !line.includes('panicked')
      return fine || this.#expected.some((words) => line.includes(words)) ? [] : [`${node.name}: ${line}`]
    })
  }

  /** Kills instances, which outlive their node: a variable that the runtime sets tells which are of this cluster. */
  #killInstances() {
    for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
      try {
        const variables = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0')
        if (variables.some((variable) => variable.startsWith(`VC_INSTANCE_DIR=${this.#root}/`))) process.kill(Number(pid), 'SIGKILL')
      } catch {
        // The process ended, or is not ours to read.
      }
    }
  }
}
