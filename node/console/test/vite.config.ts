// The page as it is, on a mesh that is not there: `npx vite build --config test/vite.config.ts --outDir DIR`.

import { mergeConfig } from 'vite'

import config from '../vite.config'

export default mergeConfig(config, {
  resolve: { alias: { 'vc-mesh': new URL('./fake-mesh.ts', import.meta.url).pathname } },
})
