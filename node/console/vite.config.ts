import { createHash } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { type Plugin, type Rollup, build, defineConfig } from 'vite'

/** Emits `sw.js`, the service worker that keeps the other files of the build. */
function shellWorker(): Plugin {
  return {
    name: 'vc-shell-worker',
    apply: 'build',
    generateBundle: {
      order: 'post',
      async handler(_, bundle) {
        const digest = createHash('sha256')
        for (const [name, file] of Object.entries(bundle)) {
          digest.update(name).update(file.type === 'chunk' ? file.code : file.source)
        }
        const files = Object.keys(bundle).filter((name) => name.startsWith('assets/'))
        const define = { FILES: JSON.stringify(files), VERSION: JSON.stringify(digest.digest('hex').slice(0, 16)) }
        const entry = fileURLToPath(new URL('shell/worker.ts', import.meta.url))
        const lib = { entry, formats: ['iife' as const], name: '_' }
        const how = { configFile: false as const, logLevel: 'warn' as const, publicDir: false as const, define }
        const built = (await build({ ...how, build: { write: false, target: 'es2023', lib } })) as Rollup.RollupOutput[]
        const chunk = built[0]?.output[0]
        if (chunk?.type !== 'chunk') throw new Error('the build of the service worker has no output')
        this.emitFile({ type: 'asset', fileName: 'sw.js', source: chunk.code })
      },
    },
  }
}

export default defineConfig({
  plugins: [shellWorker()],
  // Relative, so that the files work under any path of any host.
  base: './',
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  build: {
    target: 'es2023',
    // A data: URL of a font or a script would not pass the content security policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
})
