import { readdirSync, readFileSync, statSync } from "node:fs"
import { join, sep } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { root } from "../support/package.js"
import * as Words from "../support/words.js"

const filesBelow = (folder: string) =>
  readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .map((path) => join(folder, path).split(sep).join("/"))
    .filter((path) => !path.endsWith(".png") && statSync(join(root, path)).isFile())

const paths = ["README.md", "CONTRIBUTING.md", ...["src", "test", "examples", "docs"].flatMap(filesBelow)]

describe("comments, messages, titles and pages", () => {
  it("name what acts, or state the fact", () => {
    const [whichever, none, one] = Words.pronouns
    const sample = [
      `const accounts = ["${none}"] // run as \`${none}\``,
      `/** ${whichever} waits is served first. */`,
      `// A connection that ${none} uses, unless ${one} waits.`,
      'it("costs no connection", () => {})'
    ]
    assert.deepStrictEqual(Words.vague(new Map([["src/A.ts", sample.join("\n")]])), [
      `src/A.ts:2 says "${whichever}": name what acts: the caller, the fiber, the client, the server`,
      `src/A.ts:3 says "${none}": state the fact: an idle connection, an unknown outcome, a fiber that is never joined`,
      `src/A.ts:3 says "${one}": name what acts: another client, another fiber, a waiting read, an operator`
    ])
    const files = new Map(paths.map((path) => [path, readFileSync(join(root, path), "utf8")]))
    assert.isAbove(files.size, 300)
    assert.deepStrictEqual(Words.vague(files), [])
  })
})
