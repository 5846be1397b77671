// Nodes that are one cluster, and `vc` against any of them.
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
/** Time for what should take no time, milliseconds. */
const PATIENCE = 30_000

/** Asks again and again, for what no event tells of, until `question` does not fail any more. */
export async function until(what, question, patience = PATIENCE) {
  const end = Date.now() + patience
  for (;;) {
    try {
      return await question()
    } catch (error) {
      if (Date.now() > end) throw new Error(`not within ${patience} ms: ${what}`, { cause: error })
      await new Promise((done) => setTimeout(done, 50))
    }
  }
}

export class Cluster {
  nodes = []
  #announced = []
  #root

  #where

  constructor(root, where) {
    this.#root = root
    this.#where = where
  }

  /** `count` servers `n1`, `n2`, …, each of which sees all of them up; `where`: what each `Node` is told. */
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

  /** A node that runs. */
  get #any() {
    return this.nodes.find((node) => node.runs)
  }

  /** What `vc` prints, asking a node that runs, as the admin. */
  async vc(...args) {
    const [program, words, options] = this.#command(this.#any.within, args)
    return (await promisify(execFile)(program, words, options)).stdout
  }

  /** A `vc` that runs until it is ended, in the network of `within`. */
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

  /** What `vc` prints as JSON. */
  async rows(...args) {
    return JSON.parse(await this.vc('--output', 'json', ...args))
  }

  /** A token for a browser. */
  async userToken(role = 'admin', name = 'ada') {
    return (await this.vc('token', 'create', '--user', name, '--role', role)).trim()
  }

  /** Waits until the cluster says of every node whether it is up. */
  async allUp() {
    await until('every node is known to be up or down', async () => {
      const rows = await this.rows('nodes')
      const said = Object.fromEntries(rows.map(({ name, state }) => [name, state]))
      const truth = Object.fromEntries(this.nodes.map(({ name, runs }) => [name, runs ? 'up' : 'down']))
      assert.deepEqual(said, truth)
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
   * @returns {Promise<{port: number, direct: string}>} the port that it publishes, and where it is without the mesh
   */
  async deployApp(node) {
    const [published, target] = [await freePort(), await freePort()]
    const where = node ? `, placement: {constraints: [node.name == ${node}]}` : ''
    await this.deploy(`name: shop
services:
  web:
    image: app
    command: [${JSON.stringify(process.execPath)}, ${JSON.stringify(APP)}, "${target}"]
    ports: ["${published}:${target}"]
    stop_grace_period: 1s
    deploy: {update_config: {monitor: 1s}${where}}
`)
    const direct = `http://127.0.0.1:${target}`
    await until('the app answers', () => fetch(`${direct}/status`))
    return { port: published, direct }
  }

  /** Says before it happens that nodes will log errors with these words. */
  announce(words) {
    this.#announced.push(words)
  }

  /** Ends everything. Errors: a node logged one, or a token. */
  async stop({ failed = false } = {}) {
    for (const node of this.nodes.filter(({ runs }) => runs)) await node.kill()
    this.#killInstances()
    const complaints = (await Promise.all(this.nodes.map((node) => this.#complaints(node)))).flat()
    if (failed || complaints.length > 0) for (const node of this.nodes) console.error(`--- ${node.name}:\n${node.lastLines(25)}`)
    await rm(this.#root, { recursive: true, force: true })
    if (!failed) assert.deepEqual(complaints, [], 'the logs are clean')
  }

  async #complaints(node) {
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
      return fine || this.#announced.some((words) => line.includes(words)) ? [] : [`${node.name}: ${line}`]
    })
  }

  /** Instances outlive their node: the runtime's own mark tells which are of this cluster. */
  #killInstances() {
    for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
      try {
        const variables = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0')
        if (variables.some((variable) => variable.startsWith(`VC_INSTANCE_DIR=${this.#root}/`))) process.kill(Number(pid), 'SIGKILL')
      } catch {
        // It is gone, or somebody else's.
      }
    }
  }
}
