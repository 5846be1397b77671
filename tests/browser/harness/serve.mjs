// Servers on 127.0.0.1, and bundles made by Vite.
import { once } from 'node:events'
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

import { ROOT } from './node.mjs'

export const CONSOLE = join(ROOT, 'node/console')

/**
 * Starts a server on 127.0.0.1 at a free port.
 * @returns {Promise<{port: number, close: () => void}>} closing it ends its connections as well
 */
export async function serve(server) {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const close = () => {
    server.closeAllConnections()
    server.close()
  }
  return { port: server.address().port, close }
}

/** Returns what a server of a page with nothing but this script answers at a path. */
export function pageOf(script, path) {
  const html = '<!doctype html><html lang="en"><title>A page</title><link rel="icon" href="data:,"><script type="module" src="/page.js"></script></html>'
  if (path === '/page.js') return { contentType: 'text/javascript', body: script }
  return { contentType: 'text/html; charset=utf-8', body: html }
}

/** Serves a page with nothing but this script. */
export async function serveScript(code) {
  const { port, close } = await serve(
    createServer((request, response) => {
      const { contentType, body } = pageOf(code, request.url)
      response.writeHead(200, { 'content-type': contentType })
      response.end(body)
    }),
  )
  return { url: `http://127.0.0.1:${port}/`, close }
}

/**
 * Builds with the console's Vite, in memory.
 * @returns {Promise<{fileName: string, code?: string, source?: string | Uint8Array}[]>}
 */
export async function bundle({ build: options = {}, ...config }) {
  const { build } = await import(pathToFileURL(createRequire(join(CONSOLE, 'package.json')).resolve('vite')))
  const made = await build({ logLevel: 'error', build: { write: false, ...options }, ...config })
  return [made].flat().flatMap(({ output }) => output)
}

/** Bundles a source and its imports into one script without exports. */
export async function bundleScript(entry) {
  const lib = { entry, formats: ['iife'], name: '_' }
  const [{ code }] = await bundle({ configFile: false, root: CONSOLE, build: { lib } })
  return code
}
