// Network namespaces for nodes (`home`) and for a client (`phone`) that reaches them over one of two networks.
import { execFile } from 'node:child_process'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** The first two bytes of each network: home is `.0.1`, phone `.0.2`. */
const NETWORKS = { wifi: '10.78', mobile: '10.79' }
/** The nodes' listen address, in neither network. */
const HOME = '10.80.0.1'

/** Two network namespaces; nothing outside of them is changed. */
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

  /** The nodes' listen address. */
  get listen() {
    return HOME
  }

  /** Command prefix that runs a program in the namespace of the nodes. */
  get atHome() {
    return ['ip', 'netns', 'exec', this.#home]
  }

  /** Command prefix that runs a program in the namespace of the phone. */
  get onPhone() {
    return ['ip', 'netns', 'exec', this.#phone]
  }

  /** Writes a program that starts Chromium behind this command prefix, and returns its path. */
  async chromium(program, prefix = this.onPhone) {
    const path = join(this.#dir, `chromium-${prefix.at(-1)}`)
    await writeFile(path, `#!/bin/sh\nexec ${prefix.join(' ')} ${program} "$@"\n`)
    await chmod(path, 0o755)
    return path
  }

  /** Connects the phone to this network and disconnects it from the other; `null`: disconnects it. */
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

  /** Drops this percentage of the phone's UDP packets, each way. */
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
