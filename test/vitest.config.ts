import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"

const source = (path: string) => fileURLToPath(new URL(`../src/${path}`, import.meta.url))

// `.ci/run` names a file here to count the tests from; a person needs only what the default reporter prints.
const results = process.env.TEST_RESULTS_FILE

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
    include: ["test/**/*.test.ts", "examples/**/*.test.ts"],
    setupFiles: ["test/support/deepEqual.ts"],
    // Processes, not threads: a test that crashes or is killed takes no other file's servers with it.
    pool: "forks",
    // Two cores, and every file that needs servers starts its own cluster.
    maxWorkers: 2,
    minWorkers: 1,
    retry: 0,
    passWithNoTests: false,
    testTimeout: 60_000,
    hookTimeout: 120_000,
    reporters: results === undefined ? ["default"] : ["default", ["json", { outputFile: results }]]
  }
})
