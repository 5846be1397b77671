// The mesh client in a real Chromium, against real nodes.
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'

import { Browser, NO_MUNGING } from '../harness/browser.mjs'
import { Cluster, until } from '../harness/cluster.mjs'
import { servePage } from '../harness/page.mjs'

/** Bytes of the large download. */
const LARGE = Number(process.env.VC_DOWNLOAD ?? 100_000_000)
let site, cluster, app, token, browser, page

/** Signs in on a page, sets its `mesh`, and returns the milliseconds to the first view. */
async function signIn(page, token) {
  return await page.evaluate(async (token) => {
    const begun = performance.now()
    const mesh = new vc.Mesh({ token })
    globalThis.mesh = mesh
    mesh.start()
    await new Promise((done) => mesh.onView((view, changed) => changed.has('nodes') && done()))
    return performance.now() - begun
  }, token)
}

before(async () => {
  site = await servePage()
  cluster = await Cluster.of(3)
  app = await cluster.deployApp('n3')
  token = await cluster.userToken()
})

after(async () => {
  site?.close()
  await cluster?.stop()
})

describe('A page with the mesh client', () => {
  before(async () => {
    browser = await Browser.start()
    page = await browser.open(site.url)
    await signIn(page, token)
  })
  after(() => browser?.stop())

  it('shows nodes, services and instances, and receives changes without asking', async () => {
    const seen = await page.evaluate(() => ({
      nodes: mesh.view.nodes.map(({ name }) => name).sort(),
      services: mesh.view.services.map(({ service }) => service),
      role: mesh.state.role,
      user: mesh.state.user,
    }))
    assert.deepEqual(seen, { nodes: ['n1', 'n2', 'n3'], services: ['shop/web'], role: 'admin', user: 'ada' })
    const drained = page.evaluate(
      () => new Promise((done) => mesh.onView(({ nodes }) => nodes.some(({ name, draining }) => name === 'n1' && draining) && done(true))),
    )
    await cluster.vc('drain', 'n1')
    assert.equal(await drained, true)
    await page.evaluate(() => mesh.request({ op: 'drain', node: 'n1', drain: false }))
    // `vc` asks another node than the one that accepted the change.
    await until('every node has received the change', async () =>
      assert.equal((await cluster.rows('nodes')).some(({ draining }) => draining), false),
    )
  })

  it('gets the reason when a node refuses a request', async () => {
    const refused = await page.evaluate(() => mesh.request({ op: 'scale', service: 'none', replicas: 2 }).catch(({ code, message }) => ({ code, message })))
    assert.equal(refused.code, 'refused')
    assert.match(refused.message, /no service 'none'/)
  })

  it('downloads a large file intact while the view stays live', { timeout: 300_000 }, async () => {
    const { digest, bytes, age } = await page.evaluate(async (n) => {
      const age = vc.watchAge(mesh)
      const response = await mesh.fetch('shop/web', null, `/bytes?n=${n}`)
      const hash = await vc.sha256(response.body)
      return { ...hash, age: age() }
    }, LARGE)
    assert.equal(bytes, LARGE)
    assert.equal(digest, await (await fetch(`${app.direct}/digest?n=${LARGE}`)).json())
    console.log(`measured: the view was at most ${age} ms old`)
    assert.equal(await page.evaluate(() => mesh.state.state), 'live')
  })

  it('makes 10,000 small requests without growing the memory of the node', { timeout: 600_000 }, async () => {
    const ask = (count) =>
      page.evaluate(async (count) => {
        for (let i = 0; i < count; i++) {
          const { byteLength } = await (await mesh.fetch('shop/web', null, '/bytes?n=100')).arrayBuffer()
          if (byteLength !== 100) throw new Error(`an answer of ${byteLength} bytes`)
        }
        return mesh.state.node
      }, count)
    const id = await ask(500)
    const node = cluster.nodes.find((node) => node.id === id)
    const before = await node.memory()
    await ask(10_000)
    const grown = ((await node.memory()) - before) / 1e6
    assert.ok(grown < 20, `${node.name} grew by ${grown.toFixed(1)} MB`)
  })

  it('queues requests beyond the stream limit', async () => {
    const sizes = await page.evaluate(() =>
      Promise.all(Array.from({ length: 600 }, async (_, i) => (await (await mesh.fetch('shop/web', null, `/bytes?n=${i}`)).arrayBuffer()).byteLength)),
    )
    assert.deepEqual(sizes, Array.from({ length: 600 }, (_, i) => i))
  })

  it('uploads files as a form does, and bytes as a stream', async () => {
    const { form, stream } = await page.evaluate(async () => {
      const bytes = new Uint8Array(5_000_000).map((_, i) => i)
      const post = async (body) => (await mesh.fetch('shop/web', null, '/upload', { method: 'POST', body, duplex: 'half' })).json()
      const data = new FormData()
      data.set('file', new Blob([bytes]), 'bytes.bin')
      const { digest } = await vc.sha256(new Blob([bytes]).stream())
      return { form: await post(data), stream: { ...(await post(new Blob([bytes]).stream())), wanted: digest } }
    })
    assert.match(form.type, /^multipart\/form-data; boundary=/)
    assert.ok(form.bytes > 5_000_000)
    assert.deepEqual([stream.bytes, stream.sha256], [5_000_000, stream.wanted])
  })

  it('reads a response as it arrives, and aborting it ends the request at the instance', async () => {
    const gone = async () => await (await fetch(`${app.direct}/gone`)).json()
    const before = await gone()
    const first = await page.evaluate(async () => {
      const stop = new AbortController()
      const response = await mesh.fetch('shop/web', null, '/slow?count=1000&every=50', { signal: stop.signal })
      const reader = response.body.getReader()
      const { value } = await reader.read()
      stop.abort()
      const { code } = await reader.read().catch((error) => error)
      return [new TextDecoder().decode(value).trim(), code]
    })
    assert.deepEqual(first, ['data: 1', 'aborted'])
    await until('the instance sees the request closed', async () => assert.equal(await gone(), before + 1))
  })

  it('does not mistake a truncated response for a complete one', async () => {
    const failed = await page.evaluate(async () => {
      const reader = (await mesh.fetch('shop/web', null, '/cut?n=100000')).body.getReader()
      const code = await (async () => {
        for (;;) if ((await reader.read()).done) return 'done'
      })().catch(({ code }) => code)
      const whole = await (await mesh.fetch('shop/web', null, '/cut?n=100000')).text().then(() => 'complete', ({ name }) => name)
      return [code, whole]
    })
    assert.deepEqual(failed, ['lost', 'TypeError'])
  })

  it('gets ranges, follows no redirect by itself, and sees cookies through exchange()', async () => {
    const seen = await page.evaluate(async () => {
      const part = await mesh.fetch('shop/web', null, '/range', { headers: { range: 'bytes=10-19' } })
      const moved = await mesh.fetchUrl('vc://web.shop/redirect?to=/elsewhere')
      const head = await mesh.fetch('shop/web', null, '/bytes?n=7', { method: 'HEAD' })
      const request = { service: 'shop/web', port: null, method: 'GET', target: '/cookie?set=a%3D1', headers: [['cookie', 'b=2']], body: false }
      const { head: cookie, body } = await mesh.exchange(request)
      return {
        part: [part.status, part.headers.get('content-range'), (await part.arrayBuffer()).byteLength],
        moved: [moved.status, moved.headers.get('location')],
        head: [head.headers.get('content-length'), head.body],
        cookie: [cookie.headers.find(([name]) => name === 'set-cookie')[1], await new Response(body).json()],
      }
    })
    assert.deepEqual(seen, {
      part: [206, 'bytes 10-19/1048576', 10],
      moved: [302, '/elsewhere'],
      head: ['7', null],
      cookie: ['a=1', 'b=2'],
    })
  })

  it('uses a WebSocket although a handler of the page throws', async () => {
    browser.expectError('a fault of the page')
    const received = await page.evaluate(async () => {
      const socket = mesh.socket('shop/web', null, '/ws', ['other', 'echo'])
      socket.binaryType = 'arraybuffer'
      socket.onmessage = () => {
        throw new Error('a fault of the page')
      }
      const next = (type) => new Promise((done) => socket.addEventListener(type, done, { once: true }))
      await next('open')
      const echo = async (message) => {
        socket.send(message)
        return (await next('message')).data
      }
      const text = await echo('grüß dich')
      const large = await echo(new Uint8Array(1_000_000).fill(3))
      socket.send('close 4001 enough')
      const { code, reason, wasClean } = await next('close')
      return { protocol: socket.protocol, text, large: [large.byteLength, new Uint8Array(large)[999_999]], close: [code, reason, wasClean] }
    })
    assert.deepEqual(received, { protocol: 'echo', text: 'grüß dich', large: [1_000_000, 3], close: [4001, 'enough', true] })
  })

  it('is refused with a token of another cluster, and does not send it', async () => {
    const other = await Cluster.of(1)
    try {
      const foreign = await other.userToken()
      const peers = await page.evaluate(() => mesh.known())
      const state = await page.evaluate(
        async ([token, peers]) => {
          const mesh = new vc.Mesh({ token, peers })
          const there = new Promise((done) => mesh.onState((state) => ['live', 'refused'].includes(state.state) && done(state)))
          mesh.start()
          const { node } = await there
          mesh.close()
          return node
        },
        [foreign, peers],
      )
      assert.equal(state, other.nodes[0].id, 'of all the peers it may dial, only its own cluster accepts it')
    } finally {
      await other.stop()
    }
  })
})

describe('A new page', () => {
  for (const [how, flags] of [['as installed', []], ['without SDP munging', [NO_MUNGING]]]) {
    it(`shows the cluster, with Chromium ${how}`, async () => {
      const browser = await Browser.start({ flags })
      try {
        const page = await browser.open(site.url)
        console.log(`measured: first view after ${Math.round(await signIn(page, token))} ms`)
        assert.equal(await page.evaluate(() => mesh.view.nodes.length), 3)
      } finally {
        await browser.stop()
      }
    })
  }

  it('stops when its token expires', async () => {
    const browser = await Browser.start()
    try {
      const page = await browser.open(site.url)
      const short = (await cluster.vc('token', 'create', '--user', 'bob', '--role', 'viewer', '--ttl', '5s')).trim()
      await signIn(page, short)
      const state = await page.evaluate(() => new Promise((done) => mesh.onState((state) => state.state === 'refused' && done(state))))
      assert.match(state.reason, /expired/)
    } finally {
      await browser.stop()
    }
  })
})

describe('When the attached node dies', () => {
  it('the view is live again through another node, and an open request is lost, not repeated', async () => {
    const browser = await Browser.start()
    try {
      const page = await browser.open(site.url)
      await signIn(page, token)
      const attached = await page.evaluate(() => mesh.state.node)
      const victim = cluster.nodes.find(({ id }) => id === attached)
      // A response that has begun cannot go on elsewhere; a request without one does.
      const begun = page.evaluate(() => new Promise((done) => (globalThis.begun = () => done(true))))
      // Read piece by piece: Chromium replaces an error that breaks `text()` with its own.
      const underWay = page.evaluate(async () => {
        try {
          const { body } = await mesh.fetch('shop/web', null, '/slow?count=1000&every=100')
          for await (const piece of body) globalThis.begun(piece)
          return 'complete'
        } catch ({ code }) {
          return code
        }
      })
      await page.evaluate((id) => {
        globalThis.again = new Promise((done) => mesh.onState((state) => state.state === 'live' && state.node !== id && done(state.node)))
      }, victim.id)
      await begun
      await victim.kill()
      const now = await page.evaluate(() => again)
      assert.notEqual(now, victim.id)
      assert.equal(await underWay, 'lost')
      const down = page.evaluate((id) => new Promise((done) => mesh.onView(({ nodes }) => nodes.some((node) => node.id === id && node.state === 'down') && done(true))), victim.id)
      assert.equal(await down, true, 'the other node reports it down')
    } finally {
      await browser.stop()
    }
  })
})
