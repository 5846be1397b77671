/** The origins of apps. */
import { sha256 } from '@noble/hashes/sha2.js'

const MAX_LABEL = 63
const ALPHABET = 'abcdefghijklmnopqrstuvwxyz234567'
/** Five bits each: nobody finds two clusters, or two services with the same beginning, that share it. */
const TAG = 12

/**
 * The DNS label of an app: `SERVICE--PROJECT--TAG`, the names for people and the tag for the difference. The tag stands for
 * the cluster, the service and the port, because all that a browser keeps of an app it keeps by origin: without it the
 * cookies of one cluster's `shop/web` would go to another's, whose console may be served at the same address tomorrow.
 * Names are cut and mended where they do not fit in a label; the tag is of the whole.
 */
export function appLabel(cluster: string, service: string, port: number): string {
  const digest = sha256(new TextEncoder().encode(JSON.stringify([cluster, service, port])))
  const tag = [...digest.subarray(0, TAG)].map((byte) => ALPHABET[byte & 31]).join('')
  const [project = '', name = ''] = service.split('/')
  const words = `${name}--${project}`.toLowerCase().replaceAll(/[^a-z0-9-]/g, '-')
  const room = MAX_LABEL - TAG - 2
  // A label that begins with `xn--` is read as Punycode.
  const readable = words.replace(/^xn--/, 'x-').slice(0, room).replace(/^-+/, '').replace(/-+$/, '')
  return `${readable || 'app'}--${tag}`
}

/** Where apps are: `{app}` stands for the label. */
export type AppsPattern = string

/** What it says when there is nowhere to open apps. */
export const NO_APPS =
  'This console is not set up to open services: its console.json names no "appsOrigin". On your own node: vc console'

/** Where the apps of a console are that a node or `vc console` serves; `null`: it is served otherwise. */
export function loopbackPattern(console: URL | Location): AppsPattern | null {
  const here = console.protocol === 'http:' && ['127.0.0.1', 'localhost', '[::1]'].includes(console.hostname)
  return here ? `http://{app}.localhost:${console.port || '80'}` : null
}

/** The origins at which the console of an app on this node may be. */
export function loopbackConsoles(app: URL | Location): string[] {
  if (app.protocol !== 'http:' || !app.hostname.endsWith('.localhost')) return []
  const port = app.port === '' ? '' : `:${app.port}`
  return ['127.0.0.1', 'localhost', '[::1]'].map((host) => `http://${host}${port}`)
}

/** Checks the pattern of a static host's `console.json`. Errors: one line on what is wrong with it. */
export function staticPattern(config: unknown): AppsPattern {
  const pattern = typeof config === 'object' && config !== null && 'appsOrigin' in config ? config.appsOrigin : undefined
  if (pattern === undefined) throw new Error(NO_APPS)
  const bad = new Error('"appsOrigin" in console.json must be like "https://{app}.apps.example.org"')
  if (typeof pattern !== 'string' || !/^https:\/\/\{app\}\.[^/{}@?#]+$/.test(pattern)) throw bad
  const origin = URL.parse(pattern.replace('{app}', 'app'))?.origin
  if (origin !== pattern.replace('{app}', 'app')) throw bad
  return pattern
}

/** The origin of an app. Errors: it would be the console's own. */
export function appOrigin(pattern: AppsPattern, label: string, console: string): string {
  const { origin } = new URL(pattern.replace('{app}', label))
  if (origin === console || !origin.includes(label)) throw new Error("A service cannot be opened at the console's own origin.")
  return origin
}
