// Services opened in the browser: what apps do there, and what they cannot do to the console.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { join } from 'node:path'
import { after, afterEach, before, beforeEach, test } from 'node:test'
import { chromium } from 'playwright-core'

import { CHROMIUM, FLAGS } from '../harness/browser.mjs'
import { Cluster } from '../harness/cluster.mjs'
import { ROOT } from '../harness/node.mjs'
import { freePort } from '../harness/ports.mjs'
import { site } from '../tunnel/site.mjs'

const APP = join(ROOT, 'tests/browser/app/server.mjs')

/** Bytes of the large download. */
const LARGE = Number(process.env.VC_DOWNLOAD ?? 100_000_000)
/** A story has so long, milliseconds; the longest moves those. */
const story = (name, act) => test(name, { timeout: 120_000 }, act)

let served
let cluster
let other
let browser
let context
let console_

/** `shop/web` on one machine, `shop/api` on the other, and `shop/down`, which runs but takes no connection. */
async function deployApps(cluster) {
  const service = async (name, node, ...command) => {
    const target = await freePort()
    const words = JSON.stringify([process.execPath, ...command.map((word) => word.replace('PORT', target))])
    return `  ${name}:
    image: app
    command: ${words}
    ports: ["${await freePort()}:${target}"]
    stop_grace_period: 1s
    deploy: {update_config: {monitor: 1s}, placement: {constraints: [node.name == ${node}]}}
`
  }
  const services = [
    await service('web', 'n1', APP, 'PORT', 'web'),
    await service('api', cluster.nodes.at(-1).name, APP, 'PORT', 'api'),
    await service('down', 'n1', '-e', 'setInterval(() => {}, 60000)'),
  ]
  await cluster.deploy(`name: shop\nservices:\n${services.join('')}`)
}

async function signedIn(cluster) {
  const page = await context.newPage()
  await page.goto(served.origin)
  await page.evaluate((token) => window.signIn(token), await cluster.userToken('viewer'))
  return page
}

before(async () => {
  served = await site()
  cluster = await Cluster.of(2)
  await deployApps(cluster)
  browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS })
})
after(async () => {
  await browser?.close()
  served?.close()
  await other?.stop()
  await cluster?.stop()
})
beforeEach(async () => {
  context = await browser.newContext({ acceptDownloads: true })
  console_ = await signedIn(cluster)
})
afterEach(() => context.close())

/** Presses `Open`; the app's window, when it shows the app. */
async function open(service = 'shop/web', page = console_) {
  const [app] = await Promise.all([context.waitForEvent('page'), page.click(`[data-service="${service}"]`)])
  await app.waitForSelector('body[data-ready=yes]')
  return app
}

/** In a page: fetches something of the app, as JSON. */
const json = (page, path, init) => page.evaluate(async ([path, init]) => (await fetch(path, init)).json(), [path, init])

/** The SHA-256 of the `length` bytes that the upload sends. */
function digestOf(length) {
  const content = Buffer.alloc(length, 'a stone that rolls ')
  return createHash('sha256').update(content).digest('hex')
}

const sha256OfFile = async (path) => {
  const hash = createHash('sha256')
  for await (const piece of createReadStream(path)) hash.update(piece)
  return hash.digest('hex')
}

/** Stops every service worker, as a browser does with one that has nothing to do. */
async function stopServiceWorkers(page) {
  const session = await context.newCDPSession(page)
  const stopped = new Promise((done) => {
    session.on('ServiceWorker.workerVersionUpdated', ({ versions }) => {
      if (versions.some(({ runningStatus }) => runningStatus === 'stopped')) done()
    })
  })
  await session.send('ServiceWorker.enable')
  await session.send('ServiceWorker.stopAllWorkers')
  await stopped
  await session.detach()
}

story('a service opens at an origin of its own, with what its page links to', async () => {
  const app = await open()
  assert.match(new URL(app.url()).host, /^web--shop--[a-z2-7]{12}\.localhost:\d+$/)
  assert.equal(await app.innerText('#answer'), '/echo?from=the+page')
  assert.equal(await app.evaluate(() => document.querySelector('img').naturalWidth > 0), true, 'the picture is there')
  const { headers } = await json(app, '/echo')
  assert.equal(headers.host, new URL(app.url()).host)
  assert.equal(headers['x-forwarded-host'], headers.host)
  assert.equal(headers['x-forwarded-proto'], 'http')
  assert.equal(headers['sec-fetch-site'], 'same-origin')
  assert.match(headers['user-agent'], /Chrome/)
  assert.equal(headers.referer, app.url())
})

story('redirects are followed by the browser, also those that name the service by another name', async () => {
  const app = await open()
  const { origin } = new URL(app.url())
  for (const to of ['/page?html=there', `${origin}/page?html=there`, 'http://web.shop/page?html=there', 'http://localhost/page?html=there']) {
    await app.goto(`${origin}/redirect?to=${encodeURIComponent(to)}`)
    assert.equal(app.url(), `${origin}/page?html=there`, to)
  }
  const followed = await app.evaluate(async () => {
    const { url, redirected, status } = await fetch('/redirect?to=/echo&status=307', { method: 'GET' })
    return { url, redirected, status }
  })
  assert.deepEqual(followed, { url: `${origin}/echo`, redirected: true, status: 200 })
  assert.equal(await app.evaluate(async () => (await fetch('/redirect?to=/echo', { redirect: 'manual' })).type), 'opaqueredirect')
})

story('cookies that scripts must not see are sent unseen, the others go both ways', async () => {
  const app = await open()
  const set = (cookie) => json(app, `/cookie?set=${encodeURIComponent(cookie)}`)
  const sent = async (path = '/cookie') => (await json(app, path)).split('; ').sort()
  await set('session=s1; HttpOnly; Path=/')
  await set('theme=dark; Path=/')
  assert.equal(await app.evaluate(() => document.cookie), 'theme=dark')
  assert.deepEqual(await sent(), ['session=s1', 'theme=dark'])
  await app.evaluate(() => (document.cookie = 'theme=light; path=/'))
  assert.deepEqual(await sent(), ['session=s1', 'theme=light'])
  await app.evaluate(() => (document.cookie = 'session=forged; path=/'))
  assert.deepEqual(await sent(), ['session=s1', 'theme=light'], 'what scripts must not see they do not change')
  await app.evaluate(() => (document.cookie = 'session=; path=/; max-age=0'))
  await set('theme=; Path=/; Max-Age=0')
  assert.equal(await app.evaluate(() => document.cookie), '')
  assert.deepEqual(await sent(), ['session=s1'])
  await set('part=1; Path=/elsewhere')
  assert.deepEqual(await sent(), ['session=s1'], 'a path is minded')
  await stopServiceWorkers(app)
  assert.deepEqual(await sent(), ['session=s1'], 'a service worker that was stopped has them again')
})

story("what another site's page posts comes without cookies", async () => {
  const app = await open()
  const { origin } = new URL(app.url())
  await json(app, `/cookie?set=${encodeURIComponent('session=s1; HttpOnly; Path=/')}`)
  const elsewhere = await open('shop/api')
  const form = (referrer) => `<meta name="referrer" content="${referrer}"><form method="post" action="${origin}/cookie"><button>go</button></form>`
  for (const referrer of ['strict-origin-when-cross-origin', 'no-referrer']) {
    await elsewhere.goto(`${new URL(elsewhere.url()).origin}/page?html=${encodeURIComponent(form(referrer))}`)
    await Promise.all([elsewhere.waitForURL(`${origin}/cookie`), elsewhere.click('button')])
    assert.equal(await elsewhere.innerText('body'), '""', referrer)
    await elsewhere.reload()
    assert.equal(await elsewhere.innerText('body'), '""', `${referrer}, and again`)
    await elsewhere.goBack()
  }
  // The app's own pages post with them, also where they say no referrer.
  const header = encodeURIComponent('referrer-policy: no-referrer')
  await app.goto(`${origin}/page?header=${header}&html=${encodeURIComponent('<form method="post" action="/cookie"><button>go</button></form>')}`)
  await Promise.all([app.waitForURL(`${origin}/cookie`), app.click('button')])
  assert.equal(await app.innerText('body'), '"session=s1"')
})

story('an upload of 50 MB arrives as it was sent', async () => {
  const app = await open()
  const length = 50 * 1024 * 1024
  const got = await app.evaluate(async (length) => {
    const text = 'a stone that rolls '
    const content = new TextEncoder().encode(text.repeat(Math.ceil(length / text.length))).subarray(0, length)
    return (await fetch('/upload', { method: 'POST', body: new Blob([content]) })).json()
  }, length)
  assert.deepEqual(got, { bytes: length, sha256: digestOf(length), type: null })
})

story('a form posts a file', async () => {
  const app = await open()
  await app.setInputFiles('input[type=file]', { name: 'a.txt', mimeType: 'text/plain', buffer: Buffer.from('content') })
  await Promise.all([app.waitForURL(/\/upload$/), app.click('form button')])
  const got = JSON.parse(await app.innerText('body'))
  assert.match(got.type, /^multipart\/form-data; boundary=/)
  assert.ok(got.bytes > 100, `${got.bytes}`)
})

story('a large download arrives as an attachment, whole', async () => {
  const app = await open()
  const disposition = encodeURIComponent('content-disposition: attachment; filename="all.bin"')
  const [download] = await Promise.all([
    app.waitForEvent('download'),
    app.evaluate((path) => void (location.href = path), `/bytes?n=${LARGE}&header=${disposition}`),
  ])
  assert.equal(download.suggestedFilename(), 'all.bin')
  assert.equal(await sha256OfFile(await download.path()), await json(app, `/digest?n=${LARGE}`))
  assert.match(await app.title(), /An app/)
})

story('a link that says download is one, through the mesh', async () => {
  const app = await open()
  for (const press of ['in the page', 'by a script']) {
    const [download] = await Promise.all([
      app.waitForEvent('download'),
      app.evaluate((press) => {
        const link = Object.assign(document.createElement('a'), { href: '/bytes?n=100000', download: 'some.bin', textContent: 'it' })
        if (press === 'in the page') document.body.append(link)
        link.click()
      }, press),
    ])
    assert.equal(download.suggestedFilename(), 'some.bin', press)
    assert.equal(await sha256OfFile(await download.path()), await json(app, '/digest?n=100000'), press)
  }
})

story('events arrive one by one', async () => {
  const app = await open()
  const times = await app.evaluate(
    () =>
      new Promise((resolve) => {
        const times = []
        const events = new EventSource('/slow?count=5&every=200')
        events.onmessage = ({ data }) => {
          times.push(performance.now())
          if (data !== '5') return
          events.close()
          resolve(times)
        }
      }),
  )
  assert.equal(times.length, 5)
  assert.ok(times[4] - times[0] > 600, `they came together: ${times}`)
})

story('a part of a file can be had', async () => {
  const app = await open()
  const part = await app.evaluate(async () => {
    const answer = await fetch('/range', { headers: { range: 'bytes=1000-1999' } })
    return { status: answer.status, range: answer.headers.get('content-range'), bytes: (await answer.arrayBuffer()).byteLength }
  })
  assert.deepEqual(part, { status: 206, range: 'bytes 1000-1999/1048576', bytes: 1000 })
  assert.equal(await app.evaluate(async () => (await fetch('/range', { headers: { range: 'bytes=9999999-' } })).status), 416)
})

story('a WebSocket talks text and bytes, and closes with a word', async () => {
  const app = await open()
  await json(app, `/cookie?set=${encodeURIComponent('session=s1; HttpOnly; Path=/')}`)
  const got = await app.evaluate(
    () =>
      new Promise((resolve) => {
        const got = []
        const socket = new WebSocket(`ws://${location.host}/ws`, ['other', 'echo'])
        got.push(socket instanceof WebSocket, socket.readyState === WebSocket.CONNECTING)
        socket.binaryType = 'arraybuffer'
        socket.onopen = () => {
          got.push(socket.protocol)
          socket.send('grüß dich')
          socket.send(new Uint8Array([0, 255, 7]))
          socket.send(new Blob(['blob']))
          socket.send('close 4001 enough')
        }
        socket.onmessage = ({ data }) => got.push(typeof data === 'string' ? data : [...new Uint8Array(data)])
        socket.onclose = ({ code, reason, wasClean }) => resolve([...got, code, reason, wasClean, socket.bufferedAmount])
      }),
  )
  assert.deepEqual(got, [true, true, 'echo', 'grüß dich', [0, 255, 7], [98, 108, 111, 98], 4001, 'enough', true, 0])
  const refused = await app.evaluate(
    () =>
      new Promise((resolve) => {
        new WebSocket(`ws://${location.host}/nothing-here`).onclose = ({ code, wasClean }) => resolve([code, wasClean])
      }),
  )
  assert.deepEqual(refused, [1006, false])
})

story('a WebSocket outlives the service worker', async () => {
  const app = await open()
  await app.evaluate(
    () =>
      new Promise((resolve) => {
        window.socket = new WebSocket(`ws://${location.host}/ws`)
        window.socket.onopen = resolve
      }),
  )
  await stopServiceWorkers(app)
  const echoed = await app.evaluate(
    () =>
      new Promise((resolve) => {
        window.socket.onmessage = ({ data }) => resolve(data)
        window.socket.send('still there')
      }),
  )
  assert.equal(echoed, 'still there')
})

story('when the browser has stopped the service worker, the next click works', async () => {
  const app = await open()
  for (let i = 0; i < 3; i++) {
    await stopServiceWorkers(app)
    await app.click('text=Somewhere else')
    await app.waitForURL((url) => url.pathname !== '/')
    await app.goBack()
    await app.waitForSelector('body[data-ready=yes]')
  }
})

story('a page that believes nobody but itself still has its WebSockets', async () => {
  const app = await open()
  const { origin } = new URL(app.url())
  const html = '<!doctype html><title>strict</title><body>' + 'x'.repeat(2000)
  for (const policy of [
    "default-src 'none'",
    "script-src 'nonce-abc' 'strict-dynamic'; upgrade-insecure-requests",
    "default-src 'self'; upgrade-insecure-requests",
    "script-src 'none'",
  ]) {
    await app.goto(`${origin}/page?html=${encodeURIComponent(html)}&header=${encodeURIComponent(`content-security-policy: ${policy}`)}`)
    assert.equal(await app.evaluate(() => document.compatMode), 'CSS1Compat', 'the doctype comes first')
    const echoed = app.evaluate(
      () =>
        new Promise((resolve, reject) => {
          const socket = new WebSocket(`ws://${location.host}/ws`)
          socket.onopen = () => socket.send('hello')
          socket.onmessage = ({ data }) => resolve(data)
          socket.onclose = reject
        }),
    )
    assert.equal(await echoed, 'hello', policy)
  }
})

story('an app cannot reach the console', async () => {
  const app = await open()
  const seen = await app.evaluate(async (console_) => {
    const attempt = async (what) => {
      try {
        return String(await what())
      } catch (error) {
        return error.name
      }
    }
    return {
      opener: await attempt(() => window.opener),
      parent: await attempt(() => window.parent === window),
      storage: await attempt(() => localStorage.getItem('token')),
      fetch: await attempt(async () => (await fetch(console_)).status),
      named: await attempt(() => window.open('', 'the-console')?.location.href ?? 'nothing'),
      worker: await attempt(() => navigator.serviceWorker.register('/app.js')),
      framed: await attempt(
        () =>
          new Promise((resolve, reject) => {
            const frame = document.createElement('iframe')
            frame.src = console_
            frame.onload = () => {
              try {
                resolve(frame.contentWindow.secret)
              } catch (error) {
                reject(error)
              }
            }
            frame.onerror = reject
            document.body.append(frame)
          }),
      ),
    }
  }, served.origin)
  assert.deepEqual(seen, {
    opener: 'null',
    parent: 'true',
    storage: 'null',
    fetch: 'TypeError',
    named: 'about:blank',
    worker: 'SecurityError',
    framed: 'SecurityError',
  })
  assert.equal(console_.url(), `${served.origin}/`)
})

story('the windows of an app and of the console have no way to each other', async () => {
  await console_.evaluate(() => {
    window.name = 'the-console'
    const { open } = window
    window.open = (...how) => (window.opened = open.apply(window, how))
  })
  const app = await open()
  await console_.waitForFunction(() => window.opened.closed, null, { timeout: 5000 })
  await Promise.all([context.waitForEvent('page'), app.evaluate(() => void window.open('/page?html=trap', 'the-console'))])
  assert.equal(console_.url(), `${served.origin}/`)
})

story('a line leads to one service, whatever is asked on it', async () => {
  const app = await open()
  // With what the tunnel's own script uses, a page asks for a line; and on it, for another service.
  const answer = await app.evaluate(
    () =>
      new Promise((resolve) => {
        navigator.serviceWorker.controller.postMessage({ page: 'want-line' })
        const listen = EventTarget.prototype.addEventListener
        const frame = document.createElement('iframe')
        document.body.append(frame)
        listen.call(navigator.serviceWorker, 'message', () => {}, true)
        // The tunnel's script keeps the message to itself; so take the port before it does.
        Object.defineProperty(MessageEvent.prototype, 'ports', {
          get() {
            const ports = Reflect.get(frame.contentWindow.MessageEvent.prototype, 'ports', this)
            const [line] = ports
            if (line && this.data?.worker === 'line') {
              const { port1, port2 } = new MessageChannel()
              port1.onmessage = ({ data }) => data.answer && resolve(data)
              const of = { service: 'shop/api', app: { service: 'shop/api', port: 80 } }
              const ask = { ask: 'fetch', method: 'GET', target: '/echo', headers: [['host', 'shop.api']], body: false, ...of }
              line.postMessage(ask, [port2])
            }
            return ports
          },
        })
      }),
  )
  assert.deepEqual([answer.status, answer.headers.find(([name]) => name === 'x-app')], [200, ['x-app', 'web']])
})

story('a page elsewhere cannot give an app another way', async () => {
  const app = await open()
  const { origin } = new URL(app.url())
  const elsewhere = await open('shop/api')
  const [trap] = await Promise.all([
    context.waitForEvent('page'),
    elsewhere.evaluate((url) => {
      window.heard = []
      addEventListener('message', ({ data }) => window.heard.push(data))
      window.trap = window.open(`${url}/__vc/boot.html#guess`)
      const app = { service: 'shop/web', port: 1 }
      setInterval(() => window.trap.postMessage({ vcWelcome: 'guess', app }, '*', [new MessageChannel().port2]), 50)
    }, origin),
  ])
  await trap.waitForFunction(() => document.title === 'This service cannot be opened here', null, { timeout: 20_000 })
  assert.deepEqual(await elsewhere.evaluate(() => window.heard), [], 'it speaks to the console alone')
  assert.equal(await trap.evaluate(() => window.opener), null)
})

story('two services are apart', async () => {
  const [web, api] = [await open('shop/web'), await open('shop/api')]
  assert.notEqual(new URL(web.url()).origin, new URL(api.url()).origin)
  await json(web, `/cookie?set=${encodeURIComponent('of=web; Path=/; HttpOnly')}&set=${encodeURIComponent('seen=web; Path=/; Domain=localhost')}`)
  await json(api, `/cookie?set=${encodeURIComponent('of=api; Path=/; HttpOnly')}`)
  assert.deepEqual((await json(web, '/cookie')).split('; ').sort(), ['of=web', 'seen=web'])
  assert.equal(await json(api, '/cookie'), 'of=api')
  assert.equal(await api.evaluate(() => document.cookie), '')
})

story('one service of two clusters is two apps', async () => {
  other = await Cluster.of(1)
  await deployApps(other)
  const [web, twin] = [await open(), await open('shop/web', await signedIn(other))]
  assert.notEqual(new URL(web.url()).origin, new URL(twin.url()).origin)
})

story('without its console an app says so, and goes on when it is opened again', async () => {
  const app = await open()
  const { origin } = new URL(app.url())
  await console_.close()
  assert.equal(await app.evaluate(async () => (await fetch('/echo')).status), 503)
  await app.goto(`${origin}/page?html=later`)
  assert.match(await app.innerText('h1'), /The console is not open/)
  await open('shop/web', await signedIn(cluster))
  await app.waitForFunction(() => document.body.textContent === 'later')
})

story('when its user signs out an app says that the console is not open, and goes on when it is opened again', async () => {
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

story('while the cluster is out of reach an app says so, and goes on by itself', async () => {
  const app = await open()
  for (const node of cluster.nodes) await node.kill()
  await console_.waitForFunction(() => window.mesh.state.state !== 'live')
  await app.reload()
  assert.match(await app.innerText('h1'), /out of reach/)
  for (const node of cluster.nodes) await node.start('run')
  await app.waitForSelector('body[data-ready=yes]')
})

story('a service that does not answer is said to', async () => {
  const [app] = await Promise.all([context.waitForEvent('page'), console_.click('[data-service="shop/down"]')])
  await app.waitForURL((url) => url.pathname === '/')
  assert.match(await app.innerText('h1'), /does not answer/)
  assert.match(await app.innerText('p'), /no instance of shop\/down takes a connection/)
})

story('a request that is too large for the way is answered, and says what of it is', async () => {
  const app = await open()
  const ask = (path, headers) => app.evaluate(async (ask) => (await fetch(...ask)).text(), [path, { headers }])
  const long = 'u'.repeat(70_000)
  assert.match(await ask(`/echo?${long}`), /the URL is larger than 64 KiB/)
  assert.match(await ask('/echo', { 'x-long': long }), /the header 'x-long' is larger than 64 KiB/)
  const many = Object.fromEntries(Array.from({ length: 140 }, (_, i) => [`x-${i}`, 'a']))
  assert.match(await ask('/echo', many), /more than 128 headers/)
  await app.evaluate(() => {
    for (let i = 0; i < 20; i++) document.cookie = `c${i}=${'c'.repeat(4000)}; path=/`
  })
  assert.match(await ask('/echo'), /the header 'cookie' is larger than 64 KiB/)
  await app.reload()
  assert.match(await app.innerText('p'), /the header 'cookie' is larger than 64 KiB/)
})

story('an answer that no browser takes is said to be one', async () => {
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

story('a page opened past its service worker finds it again', async () => {
  const app = await open()
  const { origin } = new URL(app.url())
  const session = await context.newCDPSession(app)
  await session.send('Network.enable')
  await session.send('Network.setBypassServiceWorker', { bypass: true })
  await app.goto(`${origin}/page?html=there`)
  await session.send('Network.setBypassServiceWorker', { bypass: false })
  await app.waitForFunction(() => document.body.textContent === 'there')
})

story('an answer that breaks off does not look whole, and what is not wanted any more is not fetched', async () => {
  const app = await open()
  const cut = await app.evaluate(() => fetch('/cut').then((answer) => answer.arrayBuffer()).then(() => 'whole', (error) => error.name))
  assert.equal(cut, 'TypeError')
  // Whether its head was on its way already or not, the cluster is there.
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
