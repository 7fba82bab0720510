import { existsSync, readdirSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { codeBlocks, commands, exampleProblems, installedRanges, region, scriptsOf } from "../support/readme.js"
import { failure, node } from "../support/run.js"
import { typeProblems } from "../support/types.js"

const root = fileURLToPath(new URL("../..", import.meta.url))
const file = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url))
const read = (path: string) => (existsSync(file(path)) ? readFileSync(file(path), "utf8") : undefined)
const readme = read("README.md") ?? ""
const manifest = JSON.parse(read("package.json") ?? "{}") as {
  readonly scripts: Record<string, string>
  readonly peerDependencies: Record<string, string>
  readonly peerDependenciesMeta: Record<string, { readonly optional?: boolean }>
}
const examples = readdirSync(file("examples"))
  .filter((name) => name.endsWith(".ts"))
  .map((name) => `examples/${name}`)

const fence = "```"

describe("a README block and its example", () => {
  const source = "const a = 1\n// #region usage\n  const b = 2\n\n    const c = 3\n// #endregion usage\n"
  const problems = (...lines: ReadonlyArray<string>) =>
    exampleProblems(lines.join("\n"), (path) => (path === "examples/a.ts" ? source : undefined))

  it("are equal when the block is the whole file", () => {
    assert.deepStrictEqual(problems("<!-- example: examples/a.ts -->", `${fence}ts`, source.trimEnd(), fence), [])
  })

  it("are equal when the block is a region of it, without the region's indentation", () => {
    assert.deepStrictEqual(
      problems("<!-- example: examples/a.ts#usage -->", `${fence}ts`, "const b = 2\n\n  const c = 3", fence),
      []
    )
    assert.strictEqual(region(source, "usage"), "const b = 2\n\n  const c = 3")
    assert.isUndefined(region("// #endregion x\n// #region x", "x"))
  })

  it("are a problem when they differ by one character, with the line that differs", () => {
    assert.deepStrictEqual(
      problems("", "<!-- example: examples/a.ts#usage -->", `${fence}ts`, "const b = 2\n\n  const c = 4", fence),
      [
        'the ts block at line 3 differs from examples/a.ts#usage: line 3 of the block is "  const c = 4", of the file is "  const c = 3"'
      ]
    )
    assert.include(
      problems("<!-- example: examples/a.ts -->", `${fence}ts`, "const a = 1", fence)[0],
      'line 2 of the block is nothing, of the file is "// #region usage"'
    )
  })

  it("are a problem when the marker is missing, not on the line before, or not one of an example", () => {
    const missing = (line: number) =>
      `the ts block at line ${line} has no \`<!-- example: examples/NAME.ts -->\` on the line before it`
    assert.deepStrictEqual(problems(`${fence}ts`, source, fence), [missing(1)])
    assert.deepStrictEqual(problems("<!-- example: examples/a.ts -->", "", `${fence}ts`, source, fence), [missing(3)])
    assert.deepStrictEqual(problems("<!-- example: src/a.ts -->", `${fence}ts`, source, fence), [missing(2)])
    assert.include(problems("~~~~typescript", source, fence, "~~~", "~~~~")[0], "the typescript block at line 1")
  })

  it("are a problem when the file or the region does not exist", () => {
    assert.deepStrictEqual(problems("<!-- example: examples/b.ts -->", `${fence}ts`, source, fence), [
      "the ts block at line 2 names examples/b.ts, which does not exist"
    ])
    assert.include(
      problems("<!-- example: examples/a.ts#other -->", `${fence}ts`, source, fence)[0],
      "names the region other of examples/a.ts"
    )
  })

  it("concern only programs, and only real fences", () => {
    assert.deepStrictEqual(problems(`${fence}sh`, "npm test", fence, `${fence}sql`, "SELECT 1", fence), [])
    assert.deepStrictEqual(
      codeBlocks(`${fence}${fence}md\n${fence}ts\nconst a = 1\n${fence}\n${fence}${fence}`).map((block) => [
        block.language,
        block.content
      ]),
      [["md", `${fence}ts\nconst a = 1\n${fence}`]]
    )
  })
})

describe("a marked block of commands", () => {
  it("is found by its name, and only once", () => {
    const block = `<!-- quickstart:test -->\n${fence}sh\nnpm test\n${fence}\n`
    assert.strictEqual(commands(block, "quickstart:test"), "npm test")
    assert.throws(() => commands(block, "quickstart:demo"), /0 `sh` blocks marked <!-- quickstart:demo -->/)
    assert.throws(() => commands(block + block, "quickstart:test"), /2 `sh` blocks/)
  })

  it("names scripts and ranges", () => {
    assert.deepStrictEqual(scriptsOf("npm ci && npm run demo -- --once\nnpm test"), ["demo", "test"])
    assert.deepStrictEqual(
      Array.from(installedRanges('npm install effect-db-router "effect@^3.22.0" @effect/sql@^0.52.0')),
      [
        ["effect", "^3.22.0"],
        ["@effect/sql", "^0.52.0"]
      ]
    )
  })
})

describe("the README", () => {
  it("shows only programs that are examples", () => {
    assert.deepStrictEqual(exampleProblems(readme, read), [])
  })

  it("has the quickstart, and each command it shows is a script of the package", () => {
    assert.deepStrictEqual(scriptsOf(commands(readme, "quickstart:test")), ["test"])
    const shown = codeBlocks(readme).filter((block) => block.language === "sh")
    const unknown = shown.flatMap((block) => scriptsOf(block.content)).filter((name) => !(name in manifest.scripts))
    assert.deepStrictEqual(unknown, [])
  })

  it("installs the peers with the ranges of package.json", () => {
    const required = Object.entries(manifest.peerDependencies).filter(
      ([name]) => manifest.peerDependenciesMeta[name]?.optional !== true
    )
    const shown = installedRanges(commands(readme, "install"))
    assert.deepStrictEqual(
      required.map(([name]) => [name, shown.get(name)]),
      required
    )
  })
})

describe("the examples", () => {
  it("have the right types", () => {
    assert.deepStrictEqual(
      typeProblems((path) => examples.includes(path)),
      []
    )
  })

  for (const path of examples) {
    it(`runs ${path}`, { timeout: 120_000 }, async () => {
      assert.strictEqual(failure(await node(["--import", "tsx", path], { cwd: root, timeoutMillis: 110_000 })), "")
    })
  }
})
