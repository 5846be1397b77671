/** Serves the pages and files of the service worker itself. */
import embedded from 'virtual:embedded'

const HTML = 'text/html; charset=utf-8'

/** Returns a file that is built into the service worker: it matches the worker's version and is available offline. */
export function builtInFile(path: string): Response | null {
  const file = (text: string, type: string): Response =>
    new Response(text, { headers: { 'content-type': type, 'cache-control': 'no-store' } })
  switch (path) {
    case '/__vc/inject.js':
      return file(embedded['inject.js'], 'text/javascript; charset=utf-8')
    case '/__vc/boot.js':
      return file(embedded['boot.js'], 'text/javascript; charset=utf-8')
    case '/__vc/boot.css':
      return file(embedded['boot.css'], 'text/css; charset=utf-8')
    case '/__vc/enter':
      return enter()
    default:
      return null
  }
}

/** Returns a page that redirects to the app; its header moves the window to a browsing context group without the console. */
function enter(): Response {
  const headers = { 'content-type': HTML, 'cross-origin-opener-policy': 'same-origin', 'cache-control': 'no-store' }
  return new Response('<!doctype html><meta http-equiv="refresh" content="0;url=/">', { headers })
}

/**
 * Returns an error for a request without a response: a page that reloads by itself, or a line of text for anything but a
 * navigation.
 */
export function unavailable(request: Request, status: 502 | 503, title: string, text: string): Response {
  if (request.mode !== 'navigate') return new Response(`${title}. ${text}\n`, { status, headers: { 'content-type': 'text/plain' } })
  const page = embedded['boot.html']
    .replace('<html ', `<html data-method="${request.method === 'GET' ? 'GET' : 'POST'}" data-status="${status}" `)
    .replace(/<title>.*<\/title>/, () => `<title>${escapeHtml(title)}</title>`)
    .replace(/<h1>.*<\/h1>/, () => `<h1>${escapeHtml(title)}</h1>`)
    .replace(/<p>.*<\/p>/, () => `<p>${escapeHtml(text)}</p>`)
  const policy = "default-src 'none'; script-src 'self'; style-src 'self'; frame-ancestors 'self'"
  return new Response(page, { status, headers: { 'content-type': HTML, 'content-security-policy': policy } })
}

function escapeHtml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
}
