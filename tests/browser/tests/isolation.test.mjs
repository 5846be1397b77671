// Services opened in the browser are apart: from the console, and from one another.
import assert from 'node:assert/strict'
import { after } from 'node:test'

import { Cluster } from '../harness/cluster.mjs'
import { console_, context, deployApps, json, open, served, signedIn, browserTest } from '../tunnel/stage.mjs'

let other
after(() => other?.stop())

browserTest('an app cannot reach the console', async () => {
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

browserTest('the windows of an app and of the console cannot reach each other', async () => {
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

browserTest('a port reaches one service, whatever is requested on it', async () => {
  const app = await open()
  // Asks for a channel as the tunnel's script does, and calls another service on it.
  const answer = await app.evaluate(
    () =>
      new Promise((resolve) => {
        // Which hides the service worker, too.
        const { get } = Object.getOwnPropertyDescriptor(ServiceWorkerContainer.prototype, 'controller')
        get.call(navigator.serviceWorker).postMessage({ page: 'need-channel' })
        const listen = EventTarget.prototype.addEventListener
        const frame = document.createElement('iframe')
        document.body.append(frame)
        listen.call(navigator.serviceWorker, 'message', () => {}, true)
        // The tunnel's script stops the message's propagation, so take the port before it does.
        Object.defineProperty(MessageEvent.prototype, 'ports', {
          get() {
            const ports = Reflect.get(frame.contentWindow.MessageEvent.prototype, 'ports', this)
            const [channel] = ports
            if (channel && this.data?.worker === 'channel') {
              const { port1, port2 } = new MessageChannel()
              port1.onmessage = ({ data }) => data.reply && resolve(data)
              const of = { service: 'shop/api', app: { service: 'shop/api', port: 80 } }
              const call = { op: 'fetch', method: 'GET', target: '/echo', headers: [['host', 'shop.api']], body: false, ...of }
              channel.postMessage(call, [port2])
            }
            return ports
          },
        })
      }),
  )
  assert.deepEqual([answer.status, answer.headers.find(([name]) => name === 'x-app')], [200, ['x-app', 'web']])
})

browserTest('a page of another origin cannot give an app another port', async () => {
  const app = await open()
  const { origin } = new URL(app.url())
  const elsewhere = await open('shop/api')
  const [trap] = await Promise.all([
    context.waitForEvent('page'),
    elsewhere.evaluate((url) => {
      window.received = []
      addEventListener('message', ({ data }) => window.received.push(data))
      window.trap = window.open(`${url}/__vc/boot.html#guess`)
      const app = { service: 'shop/web', port: 1 }
      setInterval(() => window.trap.postMessage({ vcWelcome: 'guess', app }, '*', [new MessageChannel().port2]), 50)
    }, origin),
  ])
  await trap.waitForFunction(() => document.title === 'This service cannot be opened here', null, { timeout: 20_000 })
  assert.deepEqual(await elsewhere.evaluate(() => window.received), [], 'the app sends to the console alone')
  assert.equal(await trap.evaluate(() => window.opener), null)
})

browserTest('two services have separate origins', async () => {
  const [web, api] = [await open('shop/web'), await open('shop/api')]
  assert.notEqual(new URL(web.url()).origin, new URL(api.url()).origin)
  await json(web, `/cookie?set=${encodeURIComponent('of=web; Path=/; HttpOnly')}&set=${encodeURIComponent('seen=web; Path=/; Domain=localhost')}`)
  await json(api, `/cookie?set=${encodeURIComponent('of=api; Path=/; HttpOnly')}`)
  assert.deepEqual((await json(web, '/cookie')).split('; ').sort(), ['of=web', 'seen=web'])
  assert.equal(await json(api, '/cookie'), 'of=api')
  assert.equal(await api.evaluate(() => document.cookie), '')
})

browserTest('the same service of two clusters has two origins', async () => {
  other = await Cluster.of(1)
  await deployApps(other)
  const [web, twin] = [await open(), await open('shop/web', await signedIn(other))]
  assert.notEqual(new URL(web.url()).origin, new URL(twin.url()).origin)
})
