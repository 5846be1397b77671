// Builds the page with a fake mesh client: `npx vite build --config test/vite.config.ts --outDir DIR`.

import { mergeConfig } from 'vite'

import config from '../vite.config'

export default mergeConfig(config, {
  resolve: { alias: { 'vc-mesh': new URL('./fake-mesh.ts', import.meta.url).pathname } },
})
