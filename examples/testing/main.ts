/** Tests that leave nothing behind: a test file with a cluster of its own, run by vitest. */
import { spawn } from "node:child_process"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

const vitest = join(dirname(createRequire(import.meta.url).resolve("vitest/package.json")), "vitest.mjs")

spawn(process.execPath, [vitest, "run", "--config", "test/vitest.config.ts", "examples/testing"], {
  cwd: fileURLToPath(new URL("../..", import.meta.url)),
  stdio: "inherit"
}).on("exit", (code) => {
  process.exitCode = code ?? 1
})
