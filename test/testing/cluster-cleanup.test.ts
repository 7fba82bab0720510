import { type ChildProcess, spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope } from "effect"
import { PgCluster } from "effect-db-router/testing"
import { awaitNothing, processesIn, remainders, temporaryFolder } from "../support/remainders.js"

const root = fileURLToPath(new URL("../..", import.meta.url))

interface Child {
  readonly process: ChildProcess
  /** Resolves when its cluster is up. */
  readonly up: Promise<void>
  readonly end: Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>
}

const start = (directory: string, ending: string): Effect.Effect<Child> =>
  Effect.sync(() => {
    const child = spawn(
      process.execPath,
      ["--import", "tsx", Path.join(root, "test/support/cluster-child.ts"), directory, ending],
      { cwd: root, stdio: ["ignore", "pipe", "ignore"] }
    )
    return {
      process: child,
      up: new Promise((resolve) => child.stdout.once("data", () => resolve())),
      end: new Promise((resolve) => child.once("exit", (code, signal) => resolve({ code, signal })))
    }
  })

describe("when the program ends, so do its servers and their files", () => {
  for (const ending of ["as it is", "frozen", "killed"]) {
    it.scopedLive(`SIGKILL, with a standby ${ending}`, () =>
      Effect.gen(function* () {
        const folder = yield* temporaryFolder
        const child = yield* start(folder, ending)
        yield* Effect.promise(() => child.up)
        assert.isAbove(remainders(folder).length, 4)
        child.process.kill("SIGKILL")
        yield* Effect.promise(() => child.end)
        assert.deepStrictEqual(yield* awaitNothing(folder), [])
      })
    )
  }

  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    it.scopedLive(`${signal}, which still ends the program`, () =>
      Effect.gen(function* () {
        const folder = yield* temporaryFolder
        const child = yield* start(folder, "as it is")
        yield* Effect.promise(() => child.up)
        child.process.kill(signal)
        assert.deepStrictEqual(yield* Effect.promise(() => child.end), { code: null, signal })
        assert.deepStrictEqual(yield* awaitNothing(folder), [])
      })
    )
  }

  it.scopedLive("SIGKILL at any stage of the start", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      // Each a little later, from the first file on.
      for (let step = 0; step < 6; step++) {
        const child = yield* start(folder, "as it is")
        while (Fs.readdirSync(folder).length === 0) yield* Effect.sleep("2 millis")
        yield* Effect.sleep(step * 120)
        child.process.kill("SIGKILL")
        yield* Effect.promise(() => child.end)
        assert.deepStrictEqual(yield* awaitNothing(folder), [])
      }
    })
  )

  it.scopedLive("process.exit, an uncaught error, nothing left to do", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      for (const [ending, code] of [
        ["exit", 7],
        ["throw", 1],
        ["nothing", 0]
      ] as const) {
        const child = yield* start(folder, ending)
        assert.deepStrictEqual(yield* Effect.promise(() => child.end), { code, signal: null })
        assert.deepStrictEqual(yield* awaitNothing(folder), [])
      }
    })
  )
})

describe("when the scope closes, nothing is left", () => {
  it.scopedLive("of a cluster with a frozen, a killed and a promoted server", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryFolder
      const scope = yield* Scope.make()
      const { primary, replicas } = yield* Scope.extend(PgCluster.make({ replicas: 2, directory }), scope)
      yield* primary.kill
      yield* replicas[0]!.promote
      yield* replicas[1]!.freeze
      assert.isAbove(remainders(directory).length, 4)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(remainders(directory), [])
    })
  )

  it.scopedLive("however early the start is interrupted", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryFolder
      let before = 0
      for (let step = 0; step < 12; step++) {
        const fiber = yield* Effect.fork(Effect.scoped(Effect.zipRight(PgCluster.make({ directory }), Effect.never)))
        yield* Effect.sleep(step * 60)
        before = Math.max(before, remainders(directory).length)
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(remainders(directory), [])
      }
      assert.isAbove(before, 2)
    })
  )

  it.scopedLive("even if the watchdog was killed", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryFolder
      const scope = yield* Scope.make()
      const { nodes } = yield* Scope.extend(PgCluster.make({ replicas: 1, directory }), scope)
      const [workspace] = Fs.readdirSync(directory)
      const watchdog = Fs.readdirSync("/proc")
        .filter((pid) => /^\d+$/.test(pid))
        .filter((pid) => {
          try {
            return Fs.readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(`effect-db-router-cluster\0${directory}`)
          } catch {
            return false
          }
        })
      assert.strictEqual(watchdog.length, 1)
      process.kill(Number(watchdog[0]), "SIGKILL")
      yield* Effect.sleep("100 millis")
      assert.isTrue(yield* nodes[0]!.isRunning)
      yield* Scope.close(scope, Exit.void)
      assert.isFalse(Fs.existsSync(Path.join(directory, workspace!)))
      assert.deepStrictEqual(processesIn(directory), [])
    })
  )

  it.scopedLive("of several clusters at once, which do not get in each other's way", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryFolder
      const ports = yield* Effect.forEach(
        [1, 2, 3],
        (size) =>
          Effect.scoped(
            Effect.map(PgCluster.make({ replicas: size - 1, directory }), ({ nodes }) => nodes.map((node) => node.port))
          ),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(
        ports.map((each) => each.length),
        [1, 2, 3]
      )
      assert.deepStrictEqual(remainders(directory), [])
    })
  )
})
