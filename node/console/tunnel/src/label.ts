/** Computes the origins of apps and of consoles. */
import { sha256 } from '@noble/hashes/sha2.js'

const MAX_LABEL = 63
const ALPHABET = 'abcdefghijklmnopqrstuvwxyz234567'
/** Length of the tag in characters of 5 bits: collisions cannot be searched for. */
const TAG = 12

/**
 * Returns the DNS label of an app, `SERVICE--PROJECT--TAG`. The names are for users and are shortened to fit; the tag is a
 * digest of cluster, service and port. Browsers store data by origin: without the tag, the cookies of one cluster's `shop/web`
 * would be sent to another cluster's, whose console may be at the same address later.
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

/** An origin in which `{app}` stands for the label of an app. */
export type AppsPattern = string

/** Error text of a console without an origin for apps. */
export const NO_APPS =
  'This console cannot open services: its console.json has no "appsOrigin". Run vc console on your own computer instead.'

/** Returns the pattern for a console that a node or `vc console` serves on a loopback address; `null` for any other. */
export function loopbackPattern(console: URL | Location): AppsPattern | null {
  const here = console.protocol === 'http:' && ['127.0.0.1', 'localhost', '[::1]'].includes(console.hostname)
  return here ? `http://{app}.localhost:${console.port || '80'}` : null
}

/** Returns the origins that the console of an app below `localhost` may have; none for other hosts. */
export function loopbackConsoles(app: URL | Location): string[] {
  if (app.protocol !== 'http:' || !app.hostname.endsWith('.localhost')) return []
  const port = app.port === '' ? '' : `:${app.port}`
  return ['127.0.0.1', 'localhost', '[::1]'].map((host) => `http://${host}${port}`)
}

/** Returns the pattern in a static host's `console.json`. Errors: missing or malformed, one line for users. */
export function staticPattern(config: unknown): AppsPattern {
  const pattern = typeof config === 'object' && config !== null && 'appsOrigin' in config ? config.appsOrigin : undefined
  if (pattern === undefined) throw new Error(NO_APPS)
  const bad = new Error('"appsOrigin" in console.json must be like "https://{app}.apps.example.org"')
  if (typeof pattern !== 'string' || !/^https:\/\/\{app\}\.[^/{}@?#]+$/.test(pattern)) throw bad
  const origin = URL.parse(pattern.replace('{app}', 'app'))?.origin
  if (origin !== pattern.replace('{app}', 'app')) throw bad
  return pattern
}

/** Returns the origin of an app. Errors: it would be the console's own origin. */
export function appOrigin(pattern: AppsPattern, label: string, console: string): string {
  const { origin } = new URL(pattern.replace('{app}', label))
  if (origin === console || !origin.includes(label)) throw new Error("A service cannot be opened at the console's own origin.")
  return origin
}
