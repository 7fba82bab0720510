import { assert, beforeAll, describe, it } from "@effect/vitest"
import { anchors, links } from "../support/markdown.js"
import { committed } from "../support/reference.js"
import { type Module, read } from "../support/referenceModel.js"
import { pages } from "../support/referencePage.js"

/** Modules whose values people type every day. */
const everyday = ["DbRouter", "Consistency", "HttpSession", "HttpStatus", "testing/PgCluster", "testing/TestSession"]

/** Exports that need no example: another one shows them, or users do not write them. */
const plain = [
  "DbRouter.DbRouter",
  "DbRouter.isInSession",
  "DbRouter.rollback",
  "DbRouter.afterRollback",
  "HttpStatus.make",
  "testing/PgCluster.PgCluster",
  "testing/PgCluster.PgClusterError"
]

describe("the reference", { timeout: 120_000 }, () => {
  let modules: ReadonlyArray<Module>
  let made: ReadonlyMap<string, string>

  beforeAll(() => {
    modules = read()
    made = pages(modules)
  }, 120_000)

  const entryOf = (module: string, name: string) => {
    const found = modules.find((one) => one.name === module)?.entries.find((entry) => entry.name === name)
    return found ?? assert.fail(`${module} has no ${name}`)
  }

  it("is what the docstrings say now; if not: npm run reference", () => {
    const there = committed()
    assert.deepStrictEqual([...there.keys()].sort(), [...made.keys()].sort())
    const stale = [...made].filter(([name, text]) => there.get(name) !== text).map(([name]) => name)
    assert.deepStrictEqual(stale, [])
  })

  it("says in words what every export is", () => {
    const silent = modules.flatMap(({ entries, name }) =>
      entries.filter(({ text }) => text === "").map((entry) => `${name}.${entry.name}`)
    )
    assert.deepStrictEqual(silent, [])
  })

  it("has an example of what people type every day", () => {
    const lacking = modules
      .filter(({ name }) => everyday.includes(name))
      .flatMap(({ entries, name }) =>
        entries
          .filter(({ examples, isValue }) => isValue && examples.length === 0)
          .map((entry) => `${name}.${entry.name}`)
      )
    assert.deepStrictEqual(lacking.sort(), [...plain].sort())
  })

  it("shows what a module passes on with its docstring and its example", () => {
    const { examples, text } = entryOf("DbRouter", "session")
    assert.match(text, /^Runs an effect in a session/)
    assert.lengthOf(examples, 1)
    assert.include(examples[0], "DbRouter.session()")
    assert.include(entryOf("DbRouter", "commit").examples[0], 'DbRouter.commit("analytics")')
  })

  it("shows types as a user has them, whatever internals they are made of", () => {
    assert.include(entryOf("Doctor", "Report").declarations[0], "readonly findings: ReadonlyArray<Finding>")
    assert.include(entryOf("Doctor", "Level").declarations[0], '"ok" | "warning" | "problem"')
    assert.include(entryOf("DbRouter", "Explanation").declarations[0], "interface Explanation {")
    assert.match(
      entryOf("RouterConfig", "EngineConfig").declarations[0]!,
      /^interface EngineConfig extends Omit<PgClientConfig, "password"> \{/
    )
    assert.include(
      entryOf("DbRouter", "session").declarations[0],
      "<A, E, R>(self: Effect.Effect<A, E, R>, options?: Options): Effect.Effect<A, E | SqlError, R | DbRouter>"
    )
    assert.include(entryOf("RouterError", "RouterError").declarations[0], "readonly committed?: ReadonlyArray<string>")
    const [type, value] = entryOf("DbRouter", "DbRouter").declarations
    assert.match(type!, /^interface DbRouter/)
    assert.match(value!, /^declare const DbRouter: Context.Tag/)
  })

  it("links what the docstrings link, on its page or on another", () => {
    assert.include(made.get("HttpSession.md"), "[`tokenCookie`](#tokencookie)")
    assert.include(made.get("README.md"), "[`layerEnv`](./DbRouter.md#layerenv)")
    for (const [name, text] of made) {
      assert.notInclude(text, "{@link", name)
      const lost = links(text).filter(({ target }) => {
        const [file, anchor] = target.split("#")
        const page = file === "" ? text : made.get(file!.replace("./", ""))
        return page === undefined || (anchor !== undefined && !anchors(page).has(anchor))
      })
      assert.deepStrictEqual(lost, [], name)
    }
  })
})
