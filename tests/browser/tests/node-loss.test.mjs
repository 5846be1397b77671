// Services opened in the browser, when the attached node or the instance dies under them.
import assert from 'node:assert/strict'

import { cluster, console_, context, browserTest, json, open } from '../tunnel/stage.mjs'

/** Returns the node that the console is attached to. */
async function attached() {
  await console_.waitForFunction(() => window.mesh.state.state === 'live')
  const id = await console_.evaluate(() => window.mesh.state.node)
  return cluster.nodes.find((node) => node.id === id)
}

/** Opens the service whose instance is not on the attached node, and returns its page and that node. */
async function openElsewhere() {
  const node = await attached()
  return { node, app: await open(node.name === 'n1' ? 'shop/api' : 'shop/web') }
}

/** Kills a node for the time of `act`. */
async function without(node, act) {
  const begun = Date.now()
  await node.kill()
  await act((what) => console.log(`measured: ${what} ${Date.now() - begun} ms after the death of the attached node`))
  await node.start('run')
  await cluster.allUp()
}

const listen = () => {
  const source = (window.source = new EventSource('/slow?count=1000000&every=100'))
  window.opened = 0
  window.received = 0
  source.onopen = () => (window.opened += 1)
  source.onmessage = () => (window.received += 1)
}
const receives = (app, opened) => app.waitForFunction((opened) => window.opened >= opened && window.received > 3, opened)

browserTest('an EventSource reconnects after its instance died', async () => {
  const app = await open()
  await app.evaluate(listen)
  await receives(app, 1)
  await app.evaluate(() => void fetch('/exit').catch(() => {}))
  await app.waitForFunction(() => window.source.readyState === EventSource.CONNECTING)
  await app.evaluate(() => (window.received = 0))
  await receives(app, 2)
})

browserTest('an EventSource reconnects after the attached node died', async () => {
  const { node, app } = await openElsewhere()
  await app.evaluate(listen)
  await receives(app, 1)
  await without(node, async (measured) => {
    await app.waitForFunction(() => window.source.readyState === EventSource.CONNECTING)
    measured('the stream ended')
    await app.evaluate(() => (window.received = 0))
    await receives(app, 2)
    measured('it went on')
  })
})

browserTest('an EventSource whose console is closed reconnects once it is open again', async () => {
  const app = await open()
  await app.evaluate(listen)
  await receives(app, 1)
  await console_.evaluate(() => window.mesh.close())
  await app.waitForFunction(() => window.source.readyState === EventSource.CONNECTING)
  await console_.reload()
  await console_.evaluate(() => window.signIn(localStorage.getItem('token')))
  await open()
  await app.evaluate(() => (window.received = 0))
  await receives(app, 2)
})

/** Waits until the app has got so many requests to `/late` with this id. */
const asked = (page, id, count) =>
  page.waitForFunction(async ([id, count]) => (await (await fetch(`/asked?id=${id}`)).json()) === count, [id, count], { polling: 50 })

browserTest('a request without an answer is sent again when the attached node died', async () => {
  const { node, app } = await openElsewhere()
  await app.evaluate(() => {
    window.late = fetch('/late?id=get').then((answer) => answer.json())
  })
  await asked(app, 'get', 1)
  await without(node, async (measured) => {
    await asked(app, 'get', 2)
    measured('it was sent again')
    await json(app, '/release?id=get')
    assert.deepEqual(await app.evaluate(() => window.late), { method: 'GET', body: '', asked: 2 })
  })
})

browserTest('a WebSocket closes when the attached node died, and another opens', async () => {
  const { node, app } = await openElsewhere()
  await app.evaluate(
    () =>
      new Promise((resolve) => {
        window.socket = new WebSocket(`ws://${location.host}/ws`)
        window.closedWith = new Promise((closed) => (window.socket.onclose = ({ code }) => closed(code)))
        window.socket.onopen = resolve
      }),
  )
  await without(node, async (measured) => {
    assert.equal(await app.evaluate(() => window.closedWith), 1006)
    measured('the WebSocket closed')
    const echoed = await app.evaluate(
      () =>
        new Promise((resolve, reject) => {
          const socket = new WebSocket(`ws://${location.host}/ws`)
          socket.onopen = () => socket.send('again')
          socket.onmessage = ({ data }) => resolve(data)
          socket.onclose = reject
        }),
    )
    assert.equal(echoed, 'again')
  })
})

browserTest('a form that was lost says so, and is sent again by its button only', async () => {
  const { node, app } = await openElsewhere()
  const { origin } = new URL(app.url())
  const other = await context.newPage()
  await other.goto(`${origin}/`)
  const form = '<form method="post" action="/late?id=form"><input name="a" value="b"><button>go</button></form>'
  await app.goto(`${origin}/page?html=${encodeURIComponent(form)}`)
  await app.click('button', { noWaitAfter: true })
  await asked(other, 'form', 1)
  await without(node, async (measured) => {
    await app.waitForSelector('h1:text-is("The cluster is out of reach")')
    measured('the page said so')
    assert.match(await app.innerText('main'), /not known whether what you sent arrived/)
    assert.doesNotMatch(await app.innerText('main'), /reloads/)
  })
  assert.equal(await json(other, '/asked?id=form'), 1, 'it is not sent by itself')
  await app.click('text=Send again', { noWaitAfter: true })
  await asked(other, 'form', 2)
  await json(other, '/release?id=form')
  await app.waitForSelector(`pre:text-is('{"method":"POST","body":"a=b","asked":2}')`)
})
