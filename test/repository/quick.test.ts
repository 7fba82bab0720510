import { existsSync, readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { onCluster, pureTests, starts, testFiles } from "../support/quick.js"
import { importsOf } from "../support/structure.js"
import quick from "../vitest.quick.config.js"

const root = fileURLToPath(new URL("../..", import.meta.url))
const files = testFiles(root)
const pure = pureTests(files)

describe("npm run test:quick", () => {
  it("takes the tests that reach nothing which starts a server or a process", () => {
    const some = new Map([
      ["test/a.test.ts", `import { it } from "@effect/vitest"\nimport { b } from "./support/b.js"`],
      ["test/support/b.ts", `import { c } from "./c.js"\nimport { d } from "../../src/internal/util/lock.js"`],
      ["test/support/c.ts", `import { b } from "./b.js"`],
      ["test/cluster.test.ts", `import { PgCluster } from "effect-db-router/testing"`],
      ["test/alone.test.ts", `import * as PgCluster from "effect-db-router/testing/PgCluster"`],
      ["test/inner.test.ts", `import { x } from "../src/internal/cluster/place.js"`],
      ["test/far.test.ts", `import { c } from "./support/c.js"\nimport { e } from "../examples/e.js"`],
      ["examples/e.ts", `import type { Started } from "./f.js"\nexport const late = () => import("./f.js")`],
      ["examples/f.ts", `import { spawn } from "node:child_process"`]
    ])
    assert.deepStrictEqual(pureTests(some), ["test/a.test.ts"])
    assert.deepStrictEqual(starts(some, "test/far.test.ts"), [
      "test/far.test.ts",
      "examples/e.ts",
      "examples/f.ts",
      "node:child_process"
    ])
    assert.deepStrictEqual(starts(some, "test/inner.test.ts"), ["test/inner.test.ts", "src/internal/cluster/place.ts"])
  })

  it("runs all of those, and one file on a cluster", () => {
    assert.deepStrictEqual(quick.test.include, [...pure, onCluster])
    assert.isDefined(starts(files, onCluster))
    assert.isTrue(existsSync(join(root, onCluster)))
    const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"))
    assert.strictEqual(scripts["test:quick"], "vitest run --config test/vitest.quick.config.ts")
  })

  it("has tests of the pure rooms, and these tests of the repository", () => {
    const folders = [
      "classifier",
      "config",
      "consistency",
      "context",
      "driver",
      "health",
      "routing",
      "topology",
      "util"
    ]
    const missing = folders.filter((folder) => !pure.some((path) => path.startsWith(`test/${folder}/`)))
    assert.deepStrictEqual(missing, [])
    assert.includeMembers([...pure], ["test/repository/quick.test.ts", "test/repository/rooms.test.ts"])
  })

  // The rule does not look into the sources: outside these two rooms none of them starts a process.
  it("may rely on the sources to start no process", () => {
    const starting = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" }).filter(
      (path) =>
        path.endsWith(".ts") &&
        !/^(?:testing|internal[\\/]cluster)[\\/]/.test(path) &&
        importsOf(readFileSync(join(root, "src", path), "utf8")).some((name) => /^(?:node:)?child_process$/.test(name))
    )
    assert.deepStrictEqual(starting, [])
  })
})
