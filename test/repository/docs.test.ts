import { readFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { compileExamples, examplesOf } from "../support/docExamples.js"
import { undocumented } from "../support/docs.js"
import { publicModules, root } from "../support/package.js"

const head = "/**\n * @since 0.1.0\n */\n"
const doc = "/**\n * What it is.\n *\n * @since 0.1.0\n * @category models\n */\n"

describe("the documentation of a module", () => {
  const of = (text: string) => undocumented("a.ts", text)

  it("is whole when every export has a docstring with @since and @category", () => {
    assert.deepStrictEqual(
      of(
        `${head}import * as E from "effect/Effect"\n\n${doc}export const a = 1\n\n${doc}export interface B {}\n\n${doc}export class C {}\n\n` +
          `${doc}export function f(x: 1): 1\nexport function f(x: 2): 2\nexport function f(x: number) {\n  return x\n}\n\n` +
          `${doc}export declare namespace B {}\n\n${doc}export {\n  d\n} from "./d.js"\nexport {\n${doc}  e,\n${doc}  f\n} from "./e.js"\nconst hidden = E\n`
      ),
      []
    )
  })

  it("lacks what an export does not say", () => {
    assert.deepStrictEqual(
      of(
        `${head}import "a"\n\nexport const a = 1\n/** A thing. */\nexport type B = 1\n/** @since 0.1 */\nexport class C {}`
      ),
      [
        "a.ts:6 a lacks a docstring",
        "a.ts:8 B lacks @since with a version",
        "a.ts:8 B lacks @category with a name",
        "a.ts:10 C lacks @since with a version",
        "a.ts:10 C lacks @category with a name"
      ]
    )
    assert.deepStrictEqual(
      of(
        `${head}${doc}export const a = 1\nexport { b } from "./b.js"\nexport * from "./c.js"\nexport { d,\n${doc} e }`
      ),
      ["a.ts:11 b lacks a docstring", "a.ts:12 * lacks a docstring", "a.ts:13 d lacks a docstring"]
    )
  })

  it("does not take the module's docstring for that of its first export", () => {
    assert.deepStrictEqual(of(`${head}export const a = 1`), ["a.ts:4 a lacks @category with a name"])
    assert.deepStrictEqual(of(`${head}${doc}export const a = 1`), [])
  })

  it("starts with a docstring of the module itself", () => {
    assert.deepStrictEqual(of(`import "a"\n\n${doc}export const a = 1`), [
      "a.ts:1 the module lacks a docstring with @since"
    ])
  })

  it("of a barrel is its own, and that of what it does not take from modules whole", () => {
    assert.deepStrictEqual(of(`${head}export * as A from "./A.js"\nexport * as B from "./B.js"\nexport const c = 1`), [
      "a.ts:6 c lacks a docstring"
    ])
  })
})

describe("the public modules", () => {
  for (const name of ["index", "testing/index", ...publicModules()]) {
    it(`${name} documents what it exports`, () => {
      const path = `src/${name}.ts`
      assert.deepStrictEqual(undocumented(path, readFileSync(join(root, path), "utf8")), [])
    })
  }
})

describe("the programs in docstrings", { timeout: 120_000 }, () => {
  const doc = (...lines: ReadonlyArray<string>) =>
    ["/**", ...lines.map((line) => ` * ${line}`.trimEnd()), " */"].join("\n")
  const fence = "```"

  it("are found with the lines that they begin on", () => {
    const source = `const a = 1\n${doc("One.", "", "@example", `${fence}ts`, "const b = 2", "", "const c = `*`", fence, "", "@since 0.1.0")}\nconst d = 3\n${doc(`${fence}json`, "{}", fence)}`
    assert.deepStrictEqual(examplesOf("a.ts", source), [
      { path: "a.ts", line: 7, code: "const b = 2\n\nconst c = `*`\n" }
    ])
  })

  it("are compiled as a user's module would be, and what is wrong is told where it stands", () => {
    const example = (code: string) => ({ path: "src/a.ts", line: 10, code })
    const use = `import { Effect } from "effect"\nimport { DbRouter } from "effect-db-router"\n`
    assert.deepStrictEqual(
      compileExamples([
        example(`${use}const fine = DbRouter.primary(Effect.void)\n`),
        example(`${use}const wrong: number = DbRouter.primary(Effect.void)\n`),
        example('const text = "\n')
      ]),
      [
        "src/a.ts:12 Type 'Effect<void, never, never>' is not assignable to type 'number'.",
        "src/a.ts:10 Unterminated string literal."
      ]
    )
  })

  it("all compile", () => {
    const examples = ["index", "testing/index", ...publicModules()].flatMap((name) => {
      const path = `src/${name}.ts`
      return examplesOf(path, readFileSync(join(root, path), "utf8"))
    })
    assert.isAbove(examples.length, 50)
    assert.deepStrictEqual(compileExamples(examples), [])
  })
})
