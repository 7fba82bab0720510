import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import type { Packed } from "../support/package.js"
import {
  compile,
  consumer,
  entries,
  everything,
  manifest,
  missingSources,
  pack,
  publicModules,
  requiredPeers,
  write
} from "../support/package.js"
import { failure, node } from "../support/run.js"
import { lint } from "../support/shipping.js"

const modules = publicModules()

// What only an installed copy can get wrong: where the parser's WebAssembly is found, and that an optional peer is not
// asked for before it is used.
const use = `
import { Effect } from "effect"
import * as SqlClassifier from "${manifest.name}/SqlClassifier"
import { PgCluster } from "${manifest.name}/testing"

const program = Effect.gen(function* () {
  const classifier = yield* SqlClassifier.make
  console.log(classifier.classify("SELECT 1").kind, classifier.classify("DELETE FROM a").kind)
  const error = yield* Effect.flip(Effect.scoped(PgCluster.make()))
  console.log(error.reason)
})

await Effect.runPromise(program)
`

// The error code of each import, as JSON.
const refusals = (names: ReadonlyArray<string>) => `
const codes = {}
for (const name of ${JSON.stringify(names)}) {
  codes[name] = await import(name).then(() => "imported", (error) => error.code)
}
console.log(JSON.stringify(codes))
`

describe("the packed package", { timeout: 300_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), "effect-db-router-pack-"))
  const user = join(folder, "consumer")
  let packed: Packed

  beforeAll(async () => {
    packed = await pack(folder)
    write(join(user, "main.ts"), everything)
    write(join(user, "use.ts"), use)
    await consumer(user, packed.tarball)
  }, 300_000)

  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  it("holds every module with its types, maps and sources, the licence, the changelog, and nothing else", () => {
    const expected = modules
      .concat("index", "testing/index")
      .flatMap((name) => [
        `src/${name}.ts`,
        ...["js", "js.map", "d.ts", "d.ts.map"].map((extension) => `dist/${name}.${extension}`)
      ])
    const documents = ["package.json", "README.md", "CHANGELOG.md", "LICENSE"]
    for (const path of [...expected, ...documents]) {
      assert.include(packed.files, path)
    }
    const other = packed.files.filter(
      (path) => !documents.includes(path) && !/^(src\/.+\.ts|dist\/.+\.(js|d\.ts)(\.map)?)$/.test(path)
    )
    assert.deepStrictEqual(other, [])
  })

  it("has nothing that publint or arethetypeswrong would say, of any entry point", async () => {
    assert.deepStrictEqual(await lint(packed.tarball), [])
  })

  it("has source maps that lead to sources in the package", () => {
    const maps = packed.files.filter((path) => path.endsWith(".map"))
    assert.isNotEmpty(maps)
    const inside = join(user, "node_modules", manifest.name)
    assert.deepStrictEqual(
      maps.flatMap((map) => missingSources(inside, map)),
      []
    )
  })

  it("compiles and runs in a consumer under NodeNext, with the types of all libraries checked", async () => {
    assert.strictEqual(await compile(user, { module: "NodeNext" }, ["main.ts", "use.ts"]), "")
    const loaded = await node(["out/main.js"], { cwd: user, timeoutMillis: 60_000 })
    assert.strictEqual(failure(loaded), "")
    assert.strictEqual(loaded.stdout.trim(), String(entries.length))
    const used = await node(["out/use.js"], { cwd: user, timeoutMillis: 60_000, env: { PG_BIN: undefined } })
    assert.strictEqual(failure(used), "")
    assert.deepStrictEqual(used.stdout.trim().split("\n"), ["read write", "BinariesNotFound"])
  })

  it("compiles under bundler resolution and exactOptionalPropertyTypes, with the types of all libraries checked", async () => {
    const options = {
      module: "ESNext",
      moduleResolution: "bundler",
      exactOptionalPropertyTypes: true,
      verbatimModuleSyntax: true,
      noEmit: true
    }
    assert.strictEqual(await compile(user, options, ["main.ts", "use.ts"]), "")
  })

  it("would not compile a wrong use, so the two tests above can fail", async () => {
    write(join(user, "wrong.ts"), `import { Nothing } from "${manifest.name}"\nexport const nothing = Nothing\n`)
    assert.include(await compile(user, { module: "NodeNext", noEmit: true }, ["wrong.ts"]), "TS2305")
  })

  it("does not let anyone import its internals", async () => {
    const internals = packed.files.flatMap((path) => /^dist\/((?:.+\/)?internal\/.+)\.js$/.exec(path)?.[1] ?? [])
    const names = [...internals, "internal/anything", "testing/internal/anything"].map(
      (name) => `${manifest.name}/${name}`
    )
    const ended = await node(["--input-type=module", "-e", refusals(names)], { cwd: user, timeoutMillis: 60_000 })
    assert.strictEqual(failure(ended), "")
    assert.deepStrictEqual(
      JSON.parse(ended.stdout),
      Object.fromEntries(names.map((name) => [name, "ERR_PACKAGE_PATH_NOT_EXPORTED"]))
    )
  })

  it("has a command that says what to install where its optional peers are missing", async () => {
    const ended = await node([join("node_modules", ".bin", manifest.name), "check"], {
      cwd: user,
      timeoutMillis: 60_000
    })
    assert.strictEqual(ended.status, 2)
    for (const name of ["@effect/cli", "@effect/platform-node", "@effect/printer", "@effect/printer-ansi"]) {
      assert.include(ended.stderr, `"${name}@${manifest.peerDependencies[name]}"`)
    }
    assert.match(ended.stderr, /^ {2}npm install --save-dev "/m)
    assert.notInclude(ended.stderr.split("\n")[1], '"effect@')
  })

  it("asks for each peer with an upper bound, and develops against versions in that range", () => {
    for (const name of requiredPeers) {
      assert.match(manifest.peerDependencies[name]!, /^\^\d+\.\d+\.\d+$/)
      const [range, used] = [manifest.peerDependencies[name]!, manifest.devDependencies[name]!].map((text) =>
        text.slice(1).split(".").map(Number)
      )
      assert.deepStrictEqual(used!.slice(0, 2), range!.slice(0, 2), name)
    }
  })
})
