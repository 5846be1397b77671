import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import type { Plugin, Rollup } from 'vite'
import { build, defineConfig } from 'vite'

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url))
const VIRTUAL = 'virtual:embedded'

/** Bundles a script of `src` into one classic script. */
async function script(name: string): Promise<string> {
  const built = (await build({
    configFile: false,
    logLevel: 'warn',
    publicDir: false,
    build: { write: false, target: 'es2023', lib: { entry: here(`src/${name}.ts`), formats: ['iife'], name: '_' } },
  })) as Rollup.RollupOutput[]
  const chunk = built[0]?.output[0]
  if (chunk?.type !== 'chunk') throw new Error(`${name}: the build has no output`)
  return chunk.code
}

/** Embeds the boot page and the injected script in the service worker, and emits the boot page's files beside it. */
function embedded(): Plugin {
  return {
    name: 'vc-embedded',
    resolveId: (id) => (id === VIRTUAL ? `\0${VIRTUAL}` : null),
    async load(id) {
      if (id !== `\0${VIRTUAL}`) return null
      const files = {
        'boot.html': await readFile(here('boot.html'), 'utf8'),
        'boot.css': await readFile(here('boot.css'), 'utf8'),
        'boot.js': await script('boot'),
        'inject.js': await script('inject'),
      }
      for (const name of ['boot.html', 'boot.css', 'boot.js'] as const) {
        this.emitFile({ type: 'asset', fileName: name, source: files[name] })
      }
      return `export default ${JSON.stringify(files)}`
    },
  }
}

export default defineConfig({
  publicDir: false,
  plugins: [embedded()],
  build: {
    outDir: here('../dist/tunnel'),
    emptyOutDir: true,
    target: 'es2023',
    lib: { entry: here('src/sw.ts'), formats: ['iife'], name: '_', fileName: () => 'sw.js' },
  },
  test: { include: [here('test/*.test.ts')] },
})
