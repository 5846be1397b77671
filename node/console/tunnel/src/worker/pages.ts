/** Serves the pages and files of the service worker itself. */
import embedded from 'virtual:embedded'

const HTML = 'text/html; charset=utf-8'
/** The policy of the pages here, which load the files below only. A form that is sent again counts as sent by the page. */
const POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; base-uri 'none'; form-action 'self'"

/** Returns a file that is built into the service worker: it matches the worker's version and is available offline. */
export function builtInFile(path: string): Response | null {
  const file = (text: string, type: string): Response =>
    new Response(text, { headers: { 'content-type': type, 'cache-control': 'no-store' } })
  switch (path) {
    case '/__vc/inject.js':
      return file(embedded['inject.js'], 'text/javascript; charset=utf-8')
    case '/__vc/boot.html':
      // Also while the server of the console is down: an app that was open before opens again.
      return page(200, embedded['boot.html'], `${POLICY}; connect-src 'self'; worker-src 'self'; frame-ancestors 'none'`)
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

/** Why a request has no response. Texts are for users, one line each. */
export interface Problem {
  status: 502 | 503
  title: string
  text: string
  /** Whether the request may have reached the app. */
  mayHaveArrived: boolean
}

/**
 * Returns an error for a request without a response: a line of text, or for a navigation a page. That of a GET request with
 * status 503 reloads by itself. A form is submitted again by the user only, who is told whether it may have arrived.
 */
export function unavailable(request: Request, { status, title, text, mayHaveArrived }: Problem): Response {
  if (request.mode !== 'navigate') return new Response(`${title}. ${text}\n`, { status, headers: { 'content-type': 'text/plain' } })
  const shown = `<h1>${escapeHtml(title)}</h1><p>${escapeHtml(text)}</p>`
  if (request.method === 'GET') {
    const next = status === 503 ? '<p>This page reloads by itself once the app can be reached.</p>' : '<p><button data-do="again">Try again</button></p>'
    return own(status, status === 503 ? 'waiting' : 'failed', title, shown + next)
  }
  const arrival = mayHaveArrived
    ? 'It is not known whether what you sent arrived. Sent again, it may arrive twice.'
    : 'What you sent did not arrive.'
  const buttons = '<button data-do="again">Send again</button> <button data-do="back">Go back</button>'
  return own(status, 'failed', title, `${shown}<p>${arrival}</p><p>${buttons}</p>`)
}

/** Returns the page that asks for a user and a password; `wasRejected` if the app did not accept those that it got. */
export function signInPage(realm: string, wasRejected: boolean): Response {
  const title = 'Sign in to this service'
  const text = realm === '' ? 'The service asks for a user name and a password.' : `The service asks for a user name and a password: ${realm}`
  const main = `<h1>${title}</h1><p>${escapeHtml(text)}</p>
<form method="post">
<p role="alert">${wasRejected ? 'It did not accept these.' : ''}</p>
<label>User name <input name="user" autocomplete="username" autocapitalize="none" required autofocus></label>
<label>Password <input name="password" type="password" autocomplete="current-password"></label>
<p><button>Sign in</button> <button type="button" data-do="decline">Continue without</button></p>
</form>`
  return own(401, 'sign-in', title, main)
}

/** Returns a page of the service worker; `kind` tells `boot.js` what to do there. */
function own(status: number, kind: string, title: string, main: string): Response {
  const html = embedded['boot.html']
    .replace('<html ', `<html data-page="${kind}" `)
    .replace(/<title>.*<\/title>/, () => `<title>${escapeHtml(title)}</title>`)
    .replace(/<main>.*<\/main>/s, () => `<main>${main}</main>`)
  return page(status, html, `${POLICY}; frame-ancestors 'self'`)
}

function page(status: number, html: string, policy: string): Response {
  return new Response(html, { status, headers: { 'content-type': HTML, 'cache-control': 'no-store', 'content-security-policy': policy } })
}

function escapeHtml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
}
