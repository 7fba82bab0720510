import { execFile } from "node:child_process"
import { readFile } from "node:fs/promises"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { assert, describe, it } from "vitest"
import { planted } from "./Planted.js"
import { Workers } from "./Workers.js"

const run = promisify(execFile)

const root = fileURLToPath(new URL("../..", import.meta.url))

/** What `npm run simulate` prints, and whether it is content. */
const simulate = async (...args: ReadonlyArray<string>) => {
  const command = ["--import", "tsx", "test/simulation/main.ts", ...args]
  return run(process.execPath, command, { cwd: root, maxBuffer: 2 ** 26 }).then(
    ({ stdout }) => ({ stdout, isContent: true }),
    (error: { readonly stdout: string }) => ({ stdout: error.stdout, isContent: false })
  )
}

/** For a machine on which much else runs; alone it takes a tenth of it. */
const time = 1_200_000

describe("the simulator", () => {
  it(
    "tells the same history of the same seed, in another process and in another order",
    async () => {
      const { isContent, stdout } = await simulate("--twice", "20")
      assert.strictEqual(stdout.trim(), "20 seeds ran twice, 0 with another history")
      assert.isTrue(isContent)
    },
    time
  )

  it(
    "refuses what is real: a timer of Node's own ends the run",
    async () => {
      const file = "internal/client/transactionRunner.ts"
      const load = {
        find: "let runners = 0",
        replace: 'const { setTimeout: real } = process.getBuiltinModule("node:timers/promises")\nlet runners = 0'
      }
      const use = { find: "readonly workKey =", replace: "readonly timer = real(1)\n  readonly workKey =" }
      const workers = await Workers.start(1, [
        { file, ...load },
        { file, ...use }
      ])
      try {
        const { violations } = await workers.runOne({ seed: "1", isTold: true })
        assert.include(violations[0]?.message, "what is real: Timeout", violations[0]?.message)
      } finally {
        await workers.stop()
      }
    },
    time
  )

  it(
    "finds nothing in the library",
    async () => {
      const { isContent, stdout } = await simulate("--seeds", "200")
      assert.match(stdout, /^0 violations$/m, stdout)
      assert.match(stdout, /^steps: /m)
      assert.notMatch(stdout, /^steps: (?:.*, )?\w+ 0(?:,|$)/m, "each kind of step occurs")
      assert.isTrue(isContent, stdout)
    },
    time
  )

  it(
    "finds faults that were planted, and says which invariant is violated",
    async () => {
      const names = [
        "a session that fails is committed",
        "a connection is used again while its cancel is on its way",
        "the settings of a session are not set",
        // Found by plans that concentrate on siblings, crowds and restarts only.
        "atomic blocks of a session do not take turns",
        "what waits for a connection is not served when one has broken",
        "what a server has told before its restart counts after it"
      ]
      const { isContent, stdout } = await simulate(...names.flatMap((name) => ["--planted", name]), "--most", "300")
      for (const name of names) assert.match(stdout, new RegExp(`\\| ${name} \\| [a-z ]+ \\| \\d+ \\|`))
      assert.isTrue(isContent, stdout)
    },
    time
  )

  it("knows the text that each planted fault changes", async () => {
    for (const { name, patches } of planted) {
      for (const { file, find } of patches) {
        const text = await readFile(fileURLToPath(new URL(`../../src/${file}`, import.meta.url)), "utf8")
        assert.strictEqual(text.split(find).length - 1, 1, `${name}: src/${file} holds this text once: ${find}`)
      }
    }
  })
})
