/** Rewrites the targets of redirects. */
import type { App } from './protocol'

/**
 * Returns a `Location` header for the browser. A URL with a name of the service leads to the app's origin, which the app may
 * not know. Any other URL is unchanged.
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
