// One `vc-node` with its data directory.
import { spawn } from 'node:child_process'
import { openSync, readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'

export const ROOT = resolve(import.meta.dirname, '../../..')
/** Folder of the programs under test. */
export const BIN = process.env.VC_BIN ?? join(ROOT, 'target/debug')

/** Returns the environment without variables that configure `vc` or `vc-node`. */
export function environment(more = {}) {
  const { VC_DATA_DIR, VC_LOG, VC_TOKEN, VC_PEER, ...rest } = process.env
  return { ...rest, ...more }
}

export class Node {
  addresses = []
  #child = null
  #exited = null

  /** `within`: command prefix that runs it in another network namespace; `listen`: the node's address there. */
  constructor(root, name, port, { within = [], listen = '127.0.0.1' } = {}) {
    this.name = name
    this.port = port
    this.within = within
    this.listen = listen
    this.dir = join(root, name)
    this.log = join(root, `${name}.log`)
  }

  get pid() {
    return this.#child.pid
  }

  get runs() {
    return this.#child !== null
  }

  /** The TCP address that `vc` dials. */
  get address() {
    return this.addresses.find((address) => address.includes('/tcp/'))
  }

  /** The peer id. */
  get id() {
    return this.address.split('/').at(-1)
  }

  /** URL of its console. */
  get console() {
    return `http://127.0.0.1:${this.port + 2}/`
  }

  /** Starts it with `init`, `join TOKEN` or `run`; resolves once it is ready. */
  async start(...how) {
    const fixed = '--runtime process --no-mdns --log-format json --cpus 4 --memory 4g'.split(' ')
    const own = ['--name', this.name, '--listen', this.listen, '--port', String(this.port), '--data-dir', this.dir]
    const stdio = ['ignore', 'pipe', openSync(this.log, 'a')]
    const [program, ...words] = [...this.within, join(BIN, 'vc-node'), ...how, ...fixed, ...own]
    this.#child = spawn(program, words, { env: environment(), stdio })
    this.#exited = new Promise((done) => this.#child.once('exit', (code, signal) => done(signal ?? code)))
    await Promise.race([this.#ready(), this.#exited.then((code) => this.#failed(code))])
  }

  /** It says where it listens, a line each. */
  #ready() {
    this.addresses = []
    return new Promise((done) => {
      createInterface({ input: this.#child.stdout }).on('line', (line) => {
        if (line.startsWith('ready ')) this.addresses.push(line.slice('ready '.length))
        if (['/tcp/', '/quic-v1/'].every((kind) => this.addresses.some((address) => address.includes(kind)))) done()
      })
    })
  }

  #failed(code) {
    throw new Error(`${this.name} ended with ${code}:\n${this.lastLines(10)}`)
  }

  lastLines(count) {
    return readFileSync(this.log, 'utf8').trimEnd().split('\n').slice(-count).join('\n')
  }

  /** Returns the resident memory, bytes. */
  async memory() {
    const statm = await readFile(`/proc/${this.pid}/statm`, 'utf8')
    return Number(statm.split(' ')[1]) * 4096
  }

  /** Sends SIGKILL to the node alone: its instances keep running. */
  kill() {
    return this.#end('SIGKILL')
  }

  /** Sends SIGTERM and waits for its exit code. */
  stop() {
    return this.#end('SIGTERM')
  }

  async #end(signal) {
    this.#child.kill(signal)
    const code = await this.#exited
    this.#child = null
    return code
  }
}
