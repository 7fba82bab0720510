import { spawn } from "node:child_process"
import { once } from "node:events"
import { readdirSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { processesIn, temporaryFolder } from "../support/remainders.js"
import { failure, node } from "../support/run.js"

const root = fileURLToPath(new URL("../..", import.meta.url))

const example = (args: ReadonlyArray<string>, env: Readonly<Record<string, string | undefined>> = {}) =>
  Effect.promise(() =>
    node(["--import", "tsx", "examples/main.ts", ...args], { cwd: root, timeoutMillis: 110_000, env })
  )

const recipes = readdirSync(new URL("../../examples/recipes", import.meta.url)).map((file) => file.replace(/\.ts$/, ""))

// tsx keeps what it has compiled.
const leftIn = (folder: string) => [
  ...readdirSync(folder).filter((name) => !name.startsWith("tsx-") && name !== "node-compile-cache"),
  ...processesIn(folder)
]

const nothingIsLeftIn = (folder: string) =>
  Effect.gen(function* () {
    for (let tries = 0; tries < 100 && leftIn(folder).length > 0; tries++) yield* Effect.sleep("50 millis")
    assert.deepStrictEqual(leftIn(folder), [])
  })

const listed = (stdout: string) =>
  Array.from(stdout.matchAll(/^ {2}(\S+) +(\S.*)$/gm), ([, name, about]) => [name!, about!] as const)

describe("npm run example", { timeout: 120_000 }, () => {
  it.live("lists what there is, with a line for each", () =>
    Effect.gen(function* () {
      const ended = yield* example([])
      assert.strictEqual(failure(ended), "")
      const names = listed(ended.stdout)
      assert.includeMembers(
        names.map(([name]) => name),
        [
          ...recipes,
          "quickstart",
          "routing",
          "sessions",
          "request-scope",
          "failover",
          "status-page",
          "queue",
          "http",
          "testing"
        ]
      )
      for (const [name, about] of names) assert.match(about, /^[A-Z@].*\S$/, name)
      assert.deepStrictEqual(names, [...names].sort())
    })
  )

  it.live("says what there is instead of what there is not", () =>
    Effect.gen(function* () {
      const ended = yield* example(["quikstart"])
      assert.strictEqual(ended.status, 1)
      assert.strictEqual(ended.stderr.trim(), "There is no example quikstart.")
      assert.includeMembers(
        listed(ended.stdout).map(([name]) => name),
        ["quickstart"]
      )
    })
  )

  it.live("passes on what comes of the example", () =>
    Effect.gen(function* () {
      // Without servers there is nothing to run on.
      const ended = yield* example(["observe"], { PG_BIN: root })
      assert.notStrictEqual(ended.status, 0)
      assert.include(ended.stderr, "initdb")
    })
  )

  it.scopedLive("ends the example when it is told to end, which leaves nothing either", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const serving = spawn(process.execPath, ["--import", "tsx", "examples/main.ts", "http", "--serve"], {
        cwd: root,
        env: { ...process.env, TMPDIR: folder },
        stdio: ["ignore", "pipe", "ignore"]
      })
      yield* Effect.promise(() => once(serving.stdout, "data"))
      serving.kill("SIGTERM")
      yield* Effect.promise(() => once(serving, "exit"))
      yield* nothingIsLeftIn(folder)
    })
  )

  it.scopedLive("runs the tests of the example of tests", () =>
    Effect.gen(function* () {
      // The results that are counted are those of the tests around this one.
      const env = { TEST_RESULTS_FILE: undefined, NO_COLOR: "1", FORCE_COLOR: undefined }
      const ended = yield* example(["testing"], env)
      assert.strictEqual(failure(ended), "")
      assert.match(ended.stdout, /Tests +2 passed/)
    })
  )
})

// Those in the folder itself are run by readme.test.ts, those in folders of their own by their tests.
describe("a recipe", { timeout: 120_000 }, () => {
  for (const name of recipes) {
    it.scopedLive(`${name} runs, does what it says, and leaves nothing`, () =>
      Effect.gen(function* () {
        const folder = yield* temporaryFolder
        const ended = yield* example([name], { TMPDIR: folder })
        assert.strictEqual(failure(ended), "")
        assert.isAbove(ended.stdout.trim().split("\n").length, 1, ended.stdout)
        assert.notInclude(ended.stdout, "NOT AS IT SHOULD BE")
        yield* nothingIsLeftIn(folder)
      })
    )
  }
})
