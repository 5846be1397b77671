import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: { include: ['test/**/*.test.ts', 'mesh/tests/**/*.test.ts', 'tunnel/test/**/*.test.ts'] },
})
