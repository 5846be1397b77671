// Services opened in the browser: what apps do there.
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'

import { digestOf, json, LARGE, open, sha256OfFile, stopServiceWorkers, browserTest } from '../tunnel/stage.mjs'

browserTest('a service opens at its own origin, with its scripts, styles and images', async () => {
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

browserTest('the browser follows redirects, including those to another name of the service', async () => {
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

browserTest('HttpOnly cookies stay hidden from scripts, other cookies are visible both ways', async () => {
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

browserTest("a cross-site POST arrives without cookies", async () => {
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

browserTest('an upload of 50 MB arrives intact', async () => {
  const app = await open()
  const length = 50 * 1024 * 1024
  const got = await app.evaluate(async (length) => {
    const text = 'a stone that rolls '
    const content = new TextEncoder().encode(text.repeat(Math.ceil(length / text.length))).subarray(0, length)
    return (await fetch('/upload', { method: 'POST', body: new Blob([content]) })).json()
  }, length)
  assert.deepEqual(got, { bytes: length, sha256: digestOf(length), type: null })
})

browserTest('a form posts a file', async () => {
  const app = await open()
  await app.setInputFiles('input[type=file]', { name: 'a.txt', mimeType: 'text/plain', buffer: Buffer.from('content') })
  await Promise.all([app.waitForURL(/\/upload$/), app.click('form button')])
  const got = JSON.parse(await app.innerText('body'))
  assert.match(got.type, /^multipart\/form-data; boundary=/)
  assert.ok(got.bytes > 100, `${got.bytes}`)
})

browserTest('a large attachment downloads intact', async () => {
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

browserTest('responses to slow readers arrive intact', async () => {
  const app = await open()
  const length = 40_000_000
  const read = await app.evaluate(async (length) => {
    const slowly = async () => {
      const body = (await fetch(`/bytes?n=${length}`)).body.getReader()
      let read = 0
      let rest = 5_000_000
      for (let next = await body.read(); !next.done; next = await body.read()) {
        read += next.value.byteLength
        if (read < rest) continue
        rest = read + 300_000
        await new Promise((resolve) => setTimeout(resolve, 50))
      }
      return read
    }
    return Promise.all([slowly(), slowly()])
  }, length)
  assert.deepEqual(read, [length, length])
})

browserTest('a link with the download attribute downloads through the mesh', async () => {
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

browserTest('a blob URL downloads unchanged', async () => {
  const app = await open()
  const [download] = await Promise.all([
    app.waitForEvent('download'),
    app.evaluate(() => {
      const href = URL.createObjectURL(new Blob(['a;b\n1;2\n'], { type: 'text/csv' }))
      const link = Object.assign(document.createElement('a'), { href, download: 'table.csv' })
      document.body.append(link)
      link.click()
    }),
  ])
  assert.equal(download.suggestedFilename(), 'table.csv')
  assert.equal(await readFile(await download.path(), 'utf8'), 'a;b\n1;2\n')
})

browserTest('an app sees no service worker, and cannot register one', async () => {
  const app = await open()
  const seen = await app.evaluate(async () => {
    const { serviceWorker } = navigator
    const ready = serviceWorker.ready.then(() => 'ready')
    const registrations = await serviceWorker.getRegistrations()
    return {
      registrations,
      registration: await serviceWorker.getRegistration(),
      controller: serviceWorker.controller,
      ready: await Promise.race([ready, Promise.resolve('not ready')]),
      refused: await serviceWorker.register('/app.js').catch(({ name, message }) => `${name}: ${message}`),
    }
  })
  const { refused, ...rest } = seen
  assert.deepEqual(rest, { registrations: [], registration: undefined, controller: null, ready: 'not ready' })
  assert.match(refused, /^SecurityError: An app opened from a Virtual Cluster console cannot register a service worker/)
  await app.reload()
  assert.match(await app.title(), /An app/)
})

/** Enters a user and a password on the sign-in page. */
async function signIn(app, user, password) {
  await app.fill('input[name=user]', user)
  await app.fill('input[name=password]', password)
  await app.click('button:text-is("Sign in")')
}

browserTest('a service with Basic authentication asks for a password, again if it is wrong, and keeps it for itself', async () => {
  const app = await open()
  const { origin } = new URL(app.url())
  await app.goto(`${origin}/basic`)
  assert.equal(await app.innerText('h1'), 'Sign in to this service')
  assert.match(await app.innerText('main'), /password: the "lab"/)
  await signIn(app, 'ada', 'wrong')
  await app.waitForSelector('text=It did not accept these.')
  await signIn(app, 'ada', 'grün:1')
  await app.waitForSelector(`pre:text-is('{"method":"GET","body":""}')`)
  assert.deepEqual(await json(app, '/basic', { method: 'POST', body: 'b' }), { method: 'POST', body: 'b' })
  assert.match((await json(app, '/echo')).headers.authorization, /^Basic /)
  await app.goto(`${origin}/`)
  await stopServiceWorkers(app)
  assert.deepEqual(await json(app, '/basic'), { method: 'GET', body: '' }, 'a service worker that was stopped is signed in')
  const given = await json(app, '/echo', { headers: { authorization: 'Bearer own' } })
  assert.equal(given.headers.authorization, 'Bearer own', 'what the app sets itself goes first')
  const other = await open('shop/api')
  assert.equal((await json(other, '/echo')).headers.authorization, undefined, 'another app does not get it')
  const { host } = new URL(other.url())
  await other.goto(`http://ada:gr%C3%BCn%3A1@${host}/basic`)
  assert.deepEqual([other.url(), await other.innerText('pre')], [`http://${host}/basic`, '{"method":"GET","body":""}'])
})

browserTest('a form that needs a password is sent with it, and the user can continue without', async () => {
  const app = await open()
  const { origin } = new URL(app.url())
  const form = '<form method="post" action="/basic"><input name="a" value="b"><button>go</button></form>'
  await app.goto(`${origin}/page?html=${encodeURIComponent(form)}`)
  await app.click('button')
  await app.waitForSelector('text=Sign in to this service')
  await app.click('text=Continue without')
  await app.waitForSelector('pre:has-text("not without a password")')
  await app.goto(`${origin}/page?html=${encodeURIComponent(form)}`)
  await app.click('button')
  await signIn(app, 'ada', 'grün:1')
  await app.waitForSelector(`pre:text-is('{"method":"POST","body":"a=b"}')`)
})

browserTest('server-sent events arrive while the response is open', async () => {
  const app = await open()
  const received = await app.evaluate(
    () =>
      new Promise((resolve) => {
        const received = []
        const events = new EventSource('/slow?count=1000000&every=200')
        events.onmessage = ({ data }) => {
          received.push(data)
          if (data !== '3') return
          events.close()
          resolve(received)
        }
      }),
  )
  assert.deepEqual(received, ['1', '2', '3'])
})

browserTest('range requests return part of a file', async () => {
  const app = await open()
  const part = await app.evaluate(async () => {
    const answer = await fetch('/range', { headers: { range: 'bytes=1000-1999' } })
    return { status: answer.status, range: answer.headers.get('content-range'), bytes: (await answer.arrayBuffer()).byteLength }
  })
  assert.deepEqual(part, { status: 206, range: 'bytes 1000-1999/1048576', bytes: 1000 })
  assert.equal(await app.evaluate(async () => (await fetch('/range', { headers: { range: 'bytes=9999999-' } })).status), 416)
})

browserTest('a WebSocket carries text and bytes, and closes with a reason', async () => {
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

browserTest('a WebSocket survives a stop of the service worker', async () => {
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

browserTest('navigation works after the browser stopped the service worker', async () => {
  const app = await open()
  for (let i = 0; i < 3; i++) {
    await stopServiceWorkers(app)
    await app.click('text=Somewhere else')
    await app.waitForURL((url) => url.pathname !== '/')
    await app.goBack()
    await app.waitForSelector('body[data-ready=yes]')
  }
})

browserTest('a page with a strict Content-Security-Policy can use WebSockets', async () => {
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
