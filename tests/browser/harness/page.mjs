// A page with the mesh client on it, as somebody who writes pages would have it.
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { once } from 'node:events'
import { pathToFileURL } from 'node:url'

import { ROOT } from './node.mjs'

const CONSOLE = join(ROOT, 'node/console')
const HTML = `<!doctype html><html lang="en"><meta charset="utf-8"><title>A page</title><link rel="icon" href="data:,">
<script type="module" src="/page.js"></script></html>`

/** The client's sources in one script, which sets `vc` to what it has. */
async function bundle() {
  const { build } = await import(pathToFileURL(createRequire(join(CONSOLE, 'package.json')).resolve('vite')))
  const name = 'virtual:page'
  const entry = JSON.stringify(join(import.meta.dirname, 'entry.js'))
  const page = {
    name: 'page',
    resolveId: (id) => (id === name ? id : null),
    load: (id) => (id === name ? `import * as vc from ${entry}; globalThis.vc = vc` : null),
  }
  const { output } = await build({
    root: CONSOLE,
    configFile: false,
    logLevel: 'error',
    plugins: [page],
    resolve: {
      alias: {
        'vc-mesh-source': join(CONSOLE, 'mesh/src/index.ts'),
        '@noble/hashes': join(CONSOLE, 'node_modules/@noble/hashes'),
      },
    },
    build: { write: false, target: 'es2023', rollupOptions: { input: name } },
  })
  return output.find(({ type }) => type === 'chunk').code
}

/** Serves the page on 127.0.0.1. */
export async function servePage() {
  const code = await bundle()
  const server = createServer((request, response) => {
    const script = request.url === '/page.js'
    response.writeHead(200, { 'content-type': script ? 'text/javascript' : 'text/html' })
    response.end(script ? code : HTML)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${server.address().port}/`,
    code,
    close: () => {
      server.closeAllConnections()
      server.close()
    },
  }
}
