import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"

const source = (path: string) => fileURLToPath(new URL(`../src/${path}`, import.meta.url))

export default defineConfig({
  resolve: {
    alias: [
      { find: /^effect-db-router$/, replacement: source("index.ts") },
      { find: /^effect-db-router\/testing$/, replacement: source("testing/index.ts") },
      { find: /^effect-db-router\/(.+)$/, replacement: source("$1.ts") }
    ]
  },
  test: {
    root: fileURLToPath(new URL("..", import.meta.url)),
    include: ["test/**/*.test.ts"],
    // Two cores, and every file that needs servers starts its own cluster.
    maxWorkers: 2,
    minWorkers: 1,
    testTimeout: 60_000,
    hookTimeout: 120_000
  }
})
