import { readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { drawnLevels, pageProblems } from "../support/architecture.js"
import { codeSpans, links } from "../support/markdown.js"
import { codeBlocks } from "../support/readme.js"
import { rooms } from "../support/roomTable.js"

const root = fileURLToPath(new URL("../..", import.meta.url))
const read = (path: string) => readFileSync(join(root, path), "utf8")
const page = read("docs/architecture.md")

describe("the page on the architecture", () => {
  const fence = "```"
  const of = (tree: ReadonlyArray<string>, walk = "", words = "") =>
    [`${fence}text`, ...tree, fence, `${fence}text`, walk, fence, words].join("\n")

  it("has each room on its level, and names no other", () => {
    const table = { a: { imports: "" }, b: { imports: "" }, c: { imports: "a" }, Top: { imports: "c b" } }
    const tree = [" 3  Top     x", " 2  c       the word a", " 1  a", "    b       y"]
    assert.deepStrictEqual(pageProblems(of(tree, "[a] x [Top]", "| word | what | `c` |"), table), [])
    assert.deepStrictEqual(drawnLevels(of(["14  Top", "    c"])), new Map(Object.entries({ Top: 14, c: 14 })))
    assert.deepStrictEqual(
      pageProblems(of([" 2  c", "    a", "    d"], "[e]", "| word | what | `f` |\n| word | what | |"), table),
      [
        "a is on level 1, and drawn on 2",
        "b is on level 1, and drawn on none",
        "Top is on level 3, and drawn on none",
        "d is drawn, and no room",
        "e is named, and no room",
        "f is named, and no room"
      ]
    )
    assert.deepStrictEqual(pageProblems(page, rooms), [])
  })

  it("draws three walks, and names no test that is not there", () => {
    assert.lengthOf(codeBlocks(page), 4)
    const tests = codeSpans(page).filter((text) => /^test\/.*\.test\.ts$/.test(text))
    assert.isAbove(tests.length, 4)
    for (const test of tests) assert.isNotEmpty(read(test))
  })

  it("is led to from the README, the index of the pages and the guide for contributors", () => {
    const targets = (path: string) => links(read(path)).map(({ target }) => target)
    assert.include(targets("README.md"), "./docs/architecture.md")
    assert.include(targets("docs/README.md"), "./architecture.md")
    assert.include(targets("CONTRIBUTING.md"), "docs/architecture.md")
  })
})
