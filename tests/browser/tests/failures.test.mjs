// Services opened in the browser, when something is not there or breaks.
import assert from 'node:assert/strict'

import { cluster, console_, context, json, open, signedIn, stopServiceWorkers, browserTest } from '../tunnel/stage.mjs'

browserTest('an app whose console is closed says so, and recovers when the console opens', async () => {
  const app = await open()
  const { origin } = new URL(app.url())
  await console_.close()
  assert.equal(await app.evaluate(async () => (await fetch('/echo')).status), 503)
  await app.goto(`${origin}/page?html=later`)
  assert.match(await app.innerText('h1'), /The console is not open/)
  await open('shop/web', await signedIn(cluster))
  await app.waitForFunction(() => document.body.textContent === 'later')
})

browserTest('an app whose user signs out says that the console is not open, and recovers after sign-in', async () => {
  const app = await open()
  const { origin } = new URL(app.url())
  await app.evaluate(async () => (window.answer = await fetch('/slow?count=1000&every=100')) && null)
  await console_.evaluate(() => window.mesh.close())
  assert.equal(await app.evaluate(() => window.answer.text().catch((error) => error.name)), 'TypeError')
  await app.goto(`${origin}/page?html=later`)
  assert.match(await app.innerText('h1'), /The console is not open/)
  assert.match(await app.innerText('p'), /Open the service there/)
  await open('shop/web', await signedIn(cluster))
  await app.waitForFunction(() => document.body.textContent === 'later')
})

browserTest('an app says that the cluster is unreachable, and recovers by itself', async () => {
  const app = await open()
  for (const node of cluster.nodes) await node.kill()
  await console_.waitForFunction(() => window.mesh.state.state !== 'live')
  await app.reload()
  assert.match(await app.innerText('h1'), /out of reach/)
  for (const node of cluster.nodes) await node.start('run')
  await app.waitForSelector('body[data-ready=yes]')
})

browserTest('a service that does not answer is reported', async () => {
  const [app] = await Promise.all([context.waitForEvent('page'), console_.click('[data-service="shop/down"]')])
  await app.waitForURL((url) => url.pathname === '/')
  assert.match(await app.innerText('h1'), /does not answer/)
  assert.match(await app.innerText('p'), /No instance of shop\/down takes a connection/)
})

browserTest('a request over a limit gets an error that names the limit', async () => {
  const app = await open()
  const ask = (path, headers) => app.evaluate(async (ask) => (await fetch(...ask)).text(), [path, { headers }])
  const long = 'u'.repeat(70_000)
  assert.match(await ask(`/echo?${long}`), /The URL is larger than 64 KiB/)
  assert.match(await ask('/echo', { 'x-long': long }), /The header 'x-long' is larger than 64 KiB/)
  const many = Object.fromEntries(Array.from({ length: 140 }, (_, i) => [`x-${i}`, 'a']))
  assert.match(await ask('/echo', many), /more than 128 headers/)
  await app.evaluate(() => {
    for (let i = 0; i < 20; i++) document.cookie = `c${i}=${'c'.repeat(4000)}; path=/`
  })
  assert.match(await ask('/echo'), /The header 'cookie' is larger than 64 KiB/)
  await app.reload()
  assert.match(await app.innerText('p'), /The header 'cookie' is larger than 64 KiB/)
})

browserTest('an invalid response is reported as such', async () => {
  const app = await open()
  const { origin } = new URL(app.url())
  for (const [path, why] of [
    ['/status?code=600', /status is 600/],
    ['/status?code=999', /status is 999/],
    ['/echo?header=content-encoding: br', /encoded as 'br'/],
    ['/echo?header=content-encoding: gzip, gzip', /encoded as 'gzip, gzip'/],
  ]) {
    await app.goto(`${origin}/`)
    const [status, text] = await app.evaluate((path) => fetch(path).then(async (it) => [it.status, await it.text()]), path)
    assert.equal(status, 502, path)
    assert.match(text, why)
    await app.goto(origin + path)
    assert.match(await app.innerText('h1'), /The answer of the service cannot be shown/)
    assert.match(await app.innerText('p'), why)
  }
})

browserTest('a page loaded without its service worker recovers it', async () => {
  const app = await open()
  const { origin } = new URL(app.url())
  const session = await context.newCDPSession(app)
  await session.send('Network.enable')
  await session.send('Network.setBypassServiceWorker', { bypass: true })
  await app.goto(`${origin}/page?html=there`)
  await session.send('Network.setBypassServiceWorker', { bypass: false })
  await app.waitForFunction(() => document.body.textContent === 'there')
})

browserTest('a truncated response fails, and an aborted request ends at the instance', async () => {
  const app = await open()
  const cut = await app.evaluate(() => fetch('/cut').then((answer) => answer.arrayBuffer()).then(() => 'complete', (error) => error.name))
  assert.equal(cut, 'TypeError')
  // Either way, whether the head was sent already or not, the cluster is reachable.
  const broken = await app.evaluate(() => fetch('/broken').then(async (it) => (await it.text()) && it.status).catch((error) => error.name))
  assert.ok(['TypeError', 502].includes(broken), `${broken}`)
  const before = await json(app, '/gone')
  await app.evaluate(async () => {
    const stop = new AbortController()
    const answer = await fetch('/slow?count=1000&every=100', { signal: stop.signal })
    await answer.body.getReader().read()
    stop.abort()
  })
  await app.waitForFunction(async (before) => (await (await fetch('/gone')).json()) > before, before, { polling: 200 })
})

/** Starts more requests than an app may have open, to a path that never answers, and aborts them after `wait` milliseconds. */
const ABORTS = {
  fetch: (wait) => {
    for (let i = 0; i < 80; i++) fetch('/silent', { signal: AbortSignal.timeout(wait) }).catch(() => {})
  },
  Request: (wait) => {
    for (let i = 0; i < 80; i++) fetch(new Request('/silent', { signal: AbortSignal.timeout(wait) })).catch(() => {})
  },
  POST: (wait) => {
    for (let i = 0; i < 80; i++) fetch('/silent', { method: 'POST', body: 'b', signal: AbortSignal.timeout(wait) }).catch(() => {})
  },
  XMLHttpRequest: (wait) => {
    for (let i = 0; i < 80; i++) {
      const request = new XMLHttpRequest()
      request.open('GET', '/silent')
      if (i % 2 === 0) request.timeout = wait
      else setTimeout(() => request.abort(), wait)
      request.send()
    }
  },
}

const waiting = (page, count) =>
  page.waitForFunction(async (count) => (await (await fetch('/waiting')).json()) === count, count, { polling: 200 })

browserTest('requests that a script aborts before an answer free their permits', async () => {
  const app = await open()
  for (const abort of Object.values(ABORTS)) {
    for (const wait of [1, 300]) {
      await app.evaluate(abort, wait)
      await waiting(app, 0)
    }
    // A worker that starts gets the abort before the requests.
    await stopServiceWorkers(app)
    await app.evaluate(abort, 1)
    await waiting(app, 0)
  }
  const unseen = await app.evaluate(async () => {
    const { url } = await fetch('/echo#a', { signal: AbortSignal.timeout(60_000) })
    const given = { signal: new AbortController().signal, method: 'POST', body: 'b' }
    const bodies = await Promise.all(['/echo', new Request('/echo', given)].map(async (it) => (await fetch(it, given)).text()))
    const one = await (await fetch(new Request('/echo', given))).text()
    return { url, bodies, one, asked: (await (await fetch('/echo?a#b', { signal: null })).json()).target }
  })
  assert.deepEqual(unseen, { url: new URL('/echo', app.url()).href, bodies: ['b', 'b'], one: 'b', asked: '/echo?a' })
})

browserTest('requests of a closed page free their permits', async () => {
  const app = await open()
  const other = await context.newPage()
  await other.goto(app.url())
  await other.evaluate(() => {
    void fetch('/silent', { keepalive: true })
    for (let i = 0; i < 40; i++) void fetch('/silent')
  })
  await waiting(app, 41)
  await other.close()
  await waiting(app, 1)
})
