import { existsSync, readdirSync, readFileSync } from "node:fs"
import { dirname, join, normalize } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { RouterError, Telemetry } from "effect-db-router"
import { anchors, codeSpans, headings, links, mayPrint, textsIn } from "../support/markdown.js"
import { manifest } from "../support/package.js"
import { codeBlocks, exampleProblems } from "../support/readme.js"
import { typeProblems } from "../support/types.js"

const root = fileURLToPath(new URL("../..", import.meta.url))
const read = (path: string) => (existsSync(join(root, path)) ? readFileSync(join(root, path), "utf8") : undefined)

const pages = [
  ...readdirSync(root).filter((path) => path.endsWith(".md")),
  ...readdirSync(join(root, "docs"), { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".md"))
    .map((path) => `docs/${path}`)
]
// Those that are written by hand: docs/reference has a test of its own.
const docs = pages.filter((path) => /^docs\/[^/]+$/.test(path))

const sources = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" })
  .filter((path) => path.endsWith(".ts"))
  .map((path) => read(`src/${path}`)!)
const texts = sources.flatMap(textsIn)

/** The compiler takes seconds, and minutes on a machine that is busy. In milliseconds. */
const compilation = 300_000

describe("a page of docs", () => {
  const page = [
    "# A `b` (c): d, e",
    "## Same",
    "## Same",
    "see [one](#same-1), [two](./x.md#y_z) and `[no](link)`",
    "```md",
    "# No heading [no](link)",
    "```",
    "![picture](a/b.png) [with](https://example.org/a_(b))"
  ].join("\n")

  it("has the anchors of its headings", () => {
    assert.deepStrictEqual([...anchors(page)], ["a-b-c-d-e", "same", "same-1"])
  })

  it("has links, which code has not", () => {
    assert.deepStrictEqual(links(page), [
      { line: 4, target: "#same-1" },
      { line: 4, target: "./x.md#y_z" },
      { line: 8, target: "a/b.png" },
      { line: 8, target: "https://example.org/a_(b)" }
    ])
  })

  it("quotes texts of the source, whatever is put into them", () => {
    const found = textsIn(`log("a b" + \`c \${d} e\` + "f"); const g = \`\${h} is \${i}\``)
    assert.deepStrictEqual(found, ["a bc … ef", "… is …"])
    assert.isTrue(mayPrint(found[0]!, "bc … ef"))
    assert.isTrue(mayPrint(found[0]!, "a bc …"))
    assert.isFalse(mayPrint(found[0]!, "bc … f e"))
    assert.isFalse(mayPrint(found[1]!, "… was …"))
  })
})

describe("the links of", () => {
  for (const path of pages) {
    it(`${path} lead somewhere`, () => {
      const lost = links(read(path)!).filter(({ target }) => {
        if (/^https?:/.test(target)) return !URL.canParse(target)
        const [file, anchor] = target.split("#")
        const named = file === "" ? path : normalize(join(dirname(path), file!))
        const text = named.endsWith(".md") ? read(named) : undefined
        return !existsSync(join(root, named)) || (anchor !== undefined && !anchors(text ?? "").has(anchor))
      })
      assert.deepStrictEqual(lost, [])
    })
  }
})

describe("the pages of docs", () => {
  for (const path of docs) {
    it(`${path} shows only programs that are examples`, () => {
      assert.deepStrictEqual(exampleProblems(read(path)!, read), [])
    })

    it(`${path} names only files that there are`, () => {
      const files = codeSpans(read(path)!).filter((text) => /^(?:test|src|examples|docs)\/[\w./-]+\.\w+$/.test(text))
      assert.deepStrictEqual(
        files.filter((file) => read(file) === undefined),
        []
      )
    })

    it(`${path} names only commands and examples that there are`, () => {
      const unknown = codeSpans(read(path)!).filter((text) => {
        const [, script, name] = /^npm run ([\w:-]+)(?: ([a-z-]+))?/.exec(text) ?? []
        if (script !== "example" || name === undefined) return script !== undefined && !(script in manifest.scripts)
        return ![`${name}.ts`, `${name}/main.ts`, `recipes/${name}.ts`].some((file) => read(`examples/${file}`))
      })
      assert.deepStrictEqual(unknown, [])
    })

    it(`${path} names only metrics and attributes that there are`, () => {
      const names = codeSpans(read(path)!).filter((text) => /^db[._](?:router|client)[._][\w.]+$/.test(text))
      assert.deepStrictEqual(
        names.filter((name) => !texts.some((text) => text.includes(name))),
        []
      )
    })

    it(`${path} is led to from its index`, () => {
      const targets = links(read("docs/README.md")!).map(({ target }) => normalize(join("docs", target.split("#")[0]!)))
      if (path !== "docs/README.md") assert.include(targets, path)
    })
  }

  it("shows each recipe that there is", () => {
    const shown = docs.flatMap((path) => codeBlocks(read(path)!).map(({ marker }) => marker ?? ""))
    const recipes = readdirSync(join(root, "examples/recipes")).map((file) => `examples/recipes/${file}`)
    assert.deepStrictEqual(
      recipes.filter((recipe) => !shown.some((marker) => marker.startsWith(`example: ${recipe}`))),
      []
    )
  })
})

describe("the troubleshooting page", () => {
  const page = read("docs/troubleshooting.md")!

  it("quotes only what the source says", () => {
    const quoted = headings(page).flatMap((heading) => codeSpans(heading))
    assert.isAbove(quoted.length, 20)
    assert.deepStrictEqual(
      quoted.filter((message) => !texts.some((text) => mayPrint(text, message))),
      []
    )
  })

  it("knows only reasons of decisions that there are, and their rules", () => {
    const table = /\| reason \| rule \| what it means \|\n\|[- |]+\n((?:\|.*\n)+)/.exec(page)?.[1] ?? ""
    const rows = table
      .trim()
      .split("\n")
      .map((row) => row.split("|"))
    const reasons = rows.flatMap((row) => codeSpans(row[1] ?? ""))
    for (const rule of rows.flatMap((row) => codeSpans(row[2] ?? ""))) assert.property(Telemetry.rules, rule)
    assert.isAbove(reasons.length, 10)
    assert.deepStrictEqual(
      reasons.filter((reason) => !texts.some((text) => mayPrint(text, reason))),
      []
    )
  })

  it("has every reason of a RouterError, with its code", () => {
    const spans = new Set(codeSpans(page))
    assert.deepStrictEqual(
      Object.entries(RouterError.codes).flatMap((names) => names.filter((name) => !spans.has(name))),
      []
    )
  })
})

describe("the recipes", () => {
  it(
    "have the right types",
    () => {
      assert.deepStrictEqual(
        typeProblems((path) => path.startsWith("examples/recipes/")),
        []
      )
    },
    compilation
  )
})
