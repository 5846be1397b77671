// The page as it is, on a mesh that is not there: `npx vite build --config test/vite.config.ts --outDir DIR`.

import { fileURLToPath } from 'node:url'

import { mergeConfig } from 'vite'

import config from '../vite.config'

export default mergeConfig(config, {
  root: fileURLToPath(new URL('..', import.meta.url)),
  resolve: { alias: { 'vc-mesh': fileURLToPath(new URL('./fake-mesh.ts', import.meta.url)) } },
})
