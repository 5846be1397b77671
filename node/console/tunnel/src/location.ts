/** Where redirects lead. */
import type { App } from './protocol'

/**
 * A `Location` for the browser: what names the service by a name of its own leads to the app's origin, for the app may not
 * know under which it is seen. Anything else stays, also what leads to other hosts.
 */
export function rewriteLocation(given: string, request: URL, app: App): string {
  const target = URL.parse(given, request)
  if (!target || !['http:', 'https:'].includes(target.protocol) || !isOwn(target, app)) return given
  return `${request.origin}${target.pathname}${target.search}${target.hash}`
}

function isOwn(target: URL, app: App): boolean {
  const [project = '', service = ''] = app.service.split('/')
  const names = [service, `${service}.${project}`, 'localhost', '127.0.0.1', '[::1]', '0.0.0.0']
  return names.includes(target.hostname) && (target.port === '' || Number(target.port) === app.port)
}
