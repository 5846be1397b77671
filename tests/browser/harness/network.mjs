// A road and somebody on it: nodes at home, and a phone that reaches them over Wi-Fi or over a mobile network.
import { execFile } from 'node:child_process'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** The networks, each with its first two numbers: the home is `.1` in each, the phone `.2`. */
const NETWORKS = { wifi: '10.78', mobile: '10.79' }
/** Where the nodes listen: an address that is in neither network. */
const HOME = '10.80.0.1'

/** Two network namespaces of its own: nothing outside of them is touched. */
export class Network {
  #home = `vc-home-${process.pid}`
  #phone = `vc-phone-${process.pid}`
  #dir
  #current = null

  static async make() {
    const network = new Network()
    network.#dir = await mkdtemp(join(tmpdir(), 'vc-network-'))
    for (const namespace of [network.#home, network.#phone]) {
      await run('ip', ['netns', 'add', namespace])
      await network.#ip(namespace, 'link set lo up')
    }
    await network.#ip(network.#home, `address add ${HOME}/32 dev lo`)
    for (const [name, net] of Object.entries(NETWORKS)) {
      await network.#ip(network.#home, `link add ${name} type veth peer name ${name} netns ${network.#phone}`)
      await network.#ip(network.#home, `address add ${net}.0.1/24 dev ${name}`)
      await network.#ip(network.#home, `link set ${name} up`)
    }
    return network
  }

  /** Where nodes are to listen. */
  get listen() {
    return HOME
  }

  /** The words before a command that have it run where the nodes are. */
  get atHome() {
    return ['ip', 'netns', 'exec', this.#home]
  }

  /** The words before a command that have it run on the phone. */
  get onPhone() {
    return ['ip', 'netns', 'exec', this.#phone]
  }

  /** A program that is Chromium on the phone. */
  async chromium(program) {
    const path = join(this.#dir, 'chromium')
    await writeFile(path, `#!/bin/sh\nexec ${this.onPhone.join(' ')} ${program} "$@"\n`)
    await chmod(path, 0o755)
    return path
  }

  /** Has the phone use this network, with an address of its own there, and no other; `null`: none at all. */
  async use(name) {
    const before = this.#current
    this.#current = name
    if (name) {
      await this.#ip(this.#phone, `link set ${name} up`)
      await this.#ip(this.#phone, `address add ${NETWORKS[name]}.0.2/24 dev ${name}`)
    }
    if (before) {
      await this.#ip(this.#phone, `address flush dev ${before}`)
      await this.#ip(this.#phone, `link set ${before} down`)
    }
    if (name) await this.#ip(this.#phone, `route replace default via ${NETWORKS[name]}.0.1`)
  }

  /** Has the phone's networks lose so many of a hundred packets of UDP, each way. */
  async lose(percent) {
    const rule = ['-p', 'udp', '-m', 'statistic', '--mode', 'random', '--probability', String(percent / 100), '-j', 'DROP']
    for (const chain of ['INPUT', 'OUTPUT']) {
      const [program, ...words] = [...this.onPhone, 'iptables', '-w']
      await run(program, [...words, '-F', chain])
      if (percent > 0) await run(program, [...words, '-A', chain, ...rule])
    }
  }

  async remove() {
    for (const namespace of [this.#home, this.#phone]) await run('ip', ['netns', 'delete', namespace]).catch(() => {})
    await rm(this.#dir, { recursive: true, force: true })
  }

  #ip(namespace, words) {
    return run('ip', ['-n', namespace, ...words.split(' ')])
  }
}
