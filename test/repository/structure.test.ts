import { execFileSync } from "node:child_process"
import { readdirSync, readFileSync } from "node:fs"
import { join, sep } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { manifest, root } from "../support/package.js"
import * as Structure from "../support/structure.js"

const read = (folder: string): ReadonlyMap<string, string> =>
  new Map(
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
      .filter((path) => path.endsWith(".ts"))
      .map((path) => [path.split(sep).join("/"), readFileSync(join(root, folder, path), "utf8")] as const)
  )

const sources = read("src")
const tests = read("test")
const lockFile = readFileSync(join(root, "package-lock.json"), "utf8")
const declared = [...Object.keys(manifest.dependencies), ...Object.keys(manifest.peerDependencies)]

// What git tracks; without git (an unpacked archive, another user's clone), what is there and was not produced here.
const topLevel = (): ReadonlySet<string> => {
  try {
    const tracked = execFileSync("git", ["ls-files", "-z"], { cwd: root, encoding: "utf8", stdio: "pipe" })
    return new Set(tracked.split("\0").flatMap((path) => (path === "" ? [] : [path.split("/")[0]!])))
  } catch {
    const produced = [".git", "coverage", "dist", "node_modules"]
    return new Set(readdirSync(root).filter((name) => !produced.includes(name)))
  }
}

const of = (files: Record<string, string>) => new Map(Object.entries(files))

describe("logs of the sources", () => {
  it("go through one module, which escapes control characters", () => {
    const others = Array.from(sources).flatMap(([path, source]) =>
      path !== "internal/validation/log.ts" &&
      /\b(?:Effect\.log[A-Z]?\w*|console\.\w+)\(/.test(source.replace(/^ *\*.*$/gm, ""))
        ? [path]
        : []
    )
    assert.deepStrictEqual(others, ["bin.ts"])
  })
})

describe("imports of the sources", () => {
  it("are of modules, not of barrels, and relative ones end in .js", () => {
    assert.deepStrictEqual(
      Structure.importStyle(
        of({
          "A.ts": `import { Effect } from "effect"\nimport * as E from "effect/Effect"\nimport type { B } from "./B"`,
          "B.ts": `export * from "@effect/sql"\nexport const late = () => import("./A.js")`
        })
      ),
      [
        'src/A.ts imports "effect": import the module, not the barrel of the package',
        'src/A.ts imports "./B": a relative import ends in .js',
        'src/B.ts imports "@effect/sql": import the module, not the barrel of the package'
      ]
    )
    assert.deepStrictEqual(Structure.importStyle(sources), [])
  })

  it("are of declared packages", () => {
    assert.deepStrictEqual(
      Structure.undeclared(
        of({ "A.ts": `import "node:fs"\nimport "@a/b/c"\nimport "d/e"\nimport "./f.js"\nimport "effect-db-router"` }),
        ["@a/b"]
      ),
      [
        'src/A.ts imports "d/e": not a dependency or peer of the package',
        'src/A.ts imports "effect-db-router": not a dependency or peer of the package'
      ]
    )
    assert.deepStrictEqual(Structure.undeclared(sources, declared), [])
  })

  it("go one way: the router knows sessions, sessions know groups, groups know engines", () => {
    assert.deepStrictEqual(
      Structure.directions(
        of({
          "Engine.ts": `import { x } from "./internal/x.js"`,
          "EngineGroup.ts": `import { Engine } from "./Engine.js"`,
          "internal/x.ts": `import { Session } from "../Session.js"`,
          "Session.ts": `import { g } from "./EngineGroup.js"`
        })
      ),
      [
        "src/Engine.ts -> internal/x.ts -> Session.ts goes against the direction of imports",
        "src/EngineGroup.ts -> Engine.ts -> internal/x.ts -> Session.ts goes against the direction of imports"
      ]
    )
    assert.deepStrictEqual(Structure.directions(sources), [])
  })

  it("keep decisions free of pools, barrels for users, and tests' helpers to themselves", () => {
    assert.deepStrictEqual(
      Structure.directions(
        of({
          "Selector.ts": `import type { Pool } from "pg"`,
          "Consistency.ts": `import { a } from "./internal/a.js"`,
          "internal/a.ts": `import { PgClient } from "@effect/sql-pg/PgClient"`,
          "Health.ts": `import { DbRouter } from "./DbRouter.js"\nimport { y } from "./testing/PgCluster.js"`,
          "Topology.ts": `import { DbRouter } from "./index.js"`,
          "testing/TestSession.ts": `import { DbRouter } from "../DbRouter.js"`
        })
      ),
      [
        "src/Selector.ts -> pg goes against the direction of imports",
        "src/Consistency.ts -> internal/a.ts -> @effect/sql-pg/PgClient goes against the direction of imports",
        'src/Health.ts imports "./DbRouter.js": only the entry points and the testing modules stand above DbRouter',
        'src/Health.ts imports "./testing/PgCluster.js": the testing modules are an entry point of their own',
        'src/Topology.ts imports "./index.js": the barrels are for users'
      ]
    )
  })

  it("do not pass internals on to users", () => {
    assert.deepStrictEqual(Structure.exposedInternals(of({ "index.ts": `export * from "./internal/a.js"` })), [
      'src/index.ts imports "./internal/a.js": a barrel exports no internals'
    ])
    assert.deepStrictEqual(Structure.exposedInternals(sources), [])
  })
})

describe("the sources", () => {
  it("silence neither the compiler nor the linter", () => {
    assert.deepStrictEqual(Structure.silenced(of({ "A.ts": "const a = 1\n// @ts-expect-error\nconst b = a as any" })), [
      'src/A.ts:2 silences the checks with "@ts-expect-error"',
      'src/A.ts:3 silences the checks with "as any"'
    ])
    assert.deepStrictEqual(Structure.silenced(sources), [])
  })

  it("take time and chance from Clock and Random", () => {
    assert.deepStrictEqual(Structure.ambient(of({ "A.ts": "// Date.now\nMath.random()\nnew Date(0)\nnew Date()" })), [
      "src/A.ts:2 uses Math.random: use Clock or Random",
      "src/A.ts:4 uses new Date(): use Clock or Random"
    ])
    assert.deepStrictEqual(Structure.ambient(sources), [])
  })

  it("end what they have begun though they are interrupted, however often", () => {
    const ends = [
      "Effect.interruptible(wait).pipe(Effect.timeoutOption(limit))",
      "Effect.timeoutTo(Effect.interruptible(wait), { duration })",
      "wait.pipe(Effect.interruptible, Effect.timeout(limit))",
      "Effect.timeout(wait, limit).pipe(Effect.interruptible)",
      "Effect.ignore(transaction.rollback)",
      "Effect.ignore(freeze(pid))",
      "connection.cancel.pipe(Effect.ignore)",
      "Effect.zipRight(transaction.rollback, transaction.giveBack)",
      "transaction.rollback.pipe(Effect.zipRight(transaction.giveBack))",
      "Effect.ensuring(transaction.rollback, transaction.giveBack)",
      "Effect.unsafeMakeSemaphore(1)",
      "const lock: Effect.Semaphore = lock",
      "Effect.timeout(Effect.disconnect(wait), limit)",
      "wait.pipe(Effect.disconnect, Effect.timeout(limit))",
      "Effect.raceFirst(wait, clock)",
      "wait.pipe(Effect.race(clock))"
    ]
    assert.deepStrictEqual(Structure.leakyEnds(of({ "A.ts": ends.join("\n") })), [
      "src/A.ts:1 waits until the caller is interrupted once more: use bounded.run",
      "src/A.ts:2 waits until the caller is interrupted once more: use bounded.run",
      "src/A.ts:3 waits until the caller is interrupted once more: use bounded.run",
      "src/A.ts:5 ignores no interruption of an end: use Effect.exit or bounded.run",
      "src/A.ts:7 ignores no interruption of an end: use Effect.exit or bounded.run",
      "src/A.ts:8 releases only after a success: use Effect.ensuring",
      "src/A.ts:9 releases only after a success: use Effect.ensuring",
      "src/A.ts:11 can lose a permit: use Lock",
      "src/A.ts:12 can lose a permit: use Lock",
      "src/A.ts:13 has no limit where nothing interrupts: use bounded.within",
      "src/A.ts:14 has no limit where nothing interrupts: use bounded.within",
      "src/A.ts:15 waits for the loser where nothing interrupts: use bounded.within",
      "src/A.ts:16 waits for the loser where nothing interrupts: use bounded.within"
    ])
    assert.deepStrictEqual(Structure.leakyEnds(sources), [])
  })

  it("ask for a date only where one is shown or compared with another machine's", () => {
    assert.sameMembers(Array.from(Structure.dates(sources)), [
      // Says that others do not.
      "internal/util/clock.ts",
      // Shown: reports, events, the status.
      "internal/doctor/check.ts",
      "internal/doctor/cluster.ts",
      // The server's clock.
      "internal/doctor/inspect.ts",
      "internal/health/monitor.ts",
      "internal/status/journal.ts",
      "internal/status/snapshot.ts",
      // The expiry of tokens.
      "internal/http/tokenTransport.ts",
      "internal/tokens/tokens.ts"
    ])
  })
})

describe("the tests", () => {
  it("all run", () => {
    assert.deepStrictEqual(
      Structure.disabledTests(of({ "a.test.ts": "it.effect.skip('a')\nit('b')\ndescribe.only('c')\nStream.skip(1)" })),
      ["a.test.ts:1 it.effect.skip: every test runs", "a.test.ts:3 describe.only: every test runs"]
    )
    assert.deepStrictEqual(Structure.disabledTests(tests), [])
  })
})

describe("the repository", () => {
  it("has at its top only what belongs there", () => {
    const allowed = [
      ".biome.json",
      ".ci",
      ".github",
      ".gitignore",
      ".npmrc",
      "CHANGELOG.md",
      "CONTRIBUTING.md",
      "LICENSE",
      "README.md",
      "docs",
      "examples",
      "package-lock.json",
      "package.json",
      "src",
      "test",
      "tsconfig.json"
    ]
    assert.deepStrictEqual(
      Array.from(topLevel()).filter((name) => !allowed.includes(name)),
      []
    )
  })

  it("has a lock file that names no registry's host, so that any mirror serves it", () => {
    assert.notMatch(lockFile, /"resolved": "http/)
  })

  // `npm install` behind a mirror that lacks a binary leaves it out of the lock file, which `npm ci` then refuses everywhere.
  it("has a lock file with the binaries of all platforms", () => {
    const { packages } = JSON.parse(lockFile) as {
      readonly packages: Readonly<Record<string, { readonly optionalDependencies?: Readonly<Record<string, string>> }>>
    }
    const absent = Object.entries(packages).flatMap(([path, { optionalDependencies = {} }]) =>
      Object.keys(optionalDependencies).filter(
        (name) => !(`node_modules/${name}` in packages) && !(`${path}/node_modules/${name}` in packages)
      )
    )
    assert.deepStrictEqual(absent, [])
  })
})
