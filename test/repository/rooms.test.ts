import { readdirSync, readFileSync } from "node:fs"
import { join, sep } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { longestChain, roomProblems } from "../support/rooms.js"
import { rooms } from "../support/roomTable.js"

const root = fileURLToPath(new URL("../..", import.meta.url))

const sources: ReadonlyMap<string, string> = new Map(
  readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".ts"))
    .map((path) => [path.split(sep).join("/"), readFileSync(join(root, "src", path), "utf8")] as const)
)

const of = (files: Record<string, string>) => new Map(Object.entries(files))

describe("the rooms of the sources", () => {
  it("import what the table says, through doors, and nothing that stands above them", () => {
    const files = of({
      "A.ts": `import { b } from "./internal/low/b.js"\nimport type { C } from "./internal/low/c.js"`,
      "internal/low/b.ts": `export * from "./c.js"\nexport type D = import("../high/d.js").D`,
      "internal/low/c.ts": "",
      "internal/high/d.ts": "",
      "internal/e.ts": ""
    })
    const low = { imports: "high", doors: "b" }
    const high = { imports: "", doors: "d" }
    assert.deepStrictEqual(roomProblems(files, { low, high, A: { imports: "low high" }, F: { imports: "" } }), [
      "src/internal/e.ts lies in no room",
      "F is in the table, and not there",
      "low imports high, which does not stand before it",
      "A imports high only in the table",
      "src/A.ts imports internal/low/c.ts, which is no door of its room"
    ])
    const without = { high: { imports: "", doors: "d e" }, low: { imports: "", doors: "b c" } }
    assert.deepStrictEqual(roomProblems(files, without), [
      "src/internal/e.ts lies in no room",
      "A is not in the table",
      "A imports low, which the table does not say: A.ts -> internal/low/c.ts",
      "low imports high, which the table does not say: internal/low/b.ts -> internal/high/d.ts",
      "high has a door that is not used: e"
    ])
    assert.deepStrictEqual(roomProblems(sources, rooms), [])
  })

  it("form chains of 14 at most", () => {
    const three = { a: { imports: "" }, b: { imports: "a" }, c: { imports: "a b" }, d: { imports: "a" } }
    assert.deepStrictEqual(longestChain(three), ["c", "b", "a"])
    assert.isAtMost(longestChain(rooms).length, 14, longestChain(rooms).join(" -> "))
  })
})
