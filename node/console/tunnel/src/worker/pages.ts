/** What the service worker says itself. */
import embedded from 'virtual:embedded'

const HTML = 'text/html; charset=utf-8'

/** Files that come from the service worker, so that they are of its own version and there when the console is not. */
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

/** A step between: with this header a window leaves the group of windows in which the console can be named. */
function enter(): Response {
  const headers = { 'content-type': HTML, 'cross-origin-opener-policy': 'same-origin', 'cache-control': 'no-store' }
  return new Response('<!doctype html><meta http-equiv="refresh" content="0;url=/">', { headers })
}

/** There is no way to the app, or none through the cluster: a page that goes on by itself, or a line. */
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
