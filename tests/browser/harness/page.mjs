// A page with the mesh client on it.
import { join } from 'node:path'

import { CONSOLE, bundle, serveScript } from './serve.mjs'

export { pageOf } from './serve.mjs'

const ENTRY = 'virtual:page'

/** Bundles the client's sources into one script that sets `vc` to their exports. */
export async function client() {
  const source = JSON.stringify(join(import.meta.dirname, 'entry.js'))
  const page = {
    name: 'page',
    resolveId: (id) => (id === ENTRY ? id : null),
    load: (id) => (id === ENTRY ? `import * as vc from ${source}; globalThis.vc = vc` : null),
  }
  const alias = {
    'vc-mesh-source': join(CONSOLE, 'mesh/src/index.ts'),
    '@noble/hashes': join(CONSOLE, 'node_modules/@noble/hashes'),
  }
  const files = await bundle({
    configFile: false,
    root: CONSOLE,
    plugins: [page],
    resolve: { alias },
    build: { target: 'es2023', rollupOptions: { input: ENTRY } },
  })
  return files.find(({ type }) => type === 'chunk').code
}

/** Serves the page on 127.0.0.1. */
export const servePage = async () => serveScript(await client())
