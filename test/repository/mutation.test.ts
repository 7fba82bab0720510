import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { equivalents, mutatedRooms } from "../mutation/rooms.js"
import { scoreOf } from "../mutation/Score.js"
import { pureTests, testFiles } from "../support/quick.js"

const root = fileURLToPath(new URL("../..", import.meta.url))

describe("npm run mutate", () => {
  const source = "const a = 1\n  const b = a < 2\n"
  const mutant = (status: string, line: number, replacement: string) => ({
    mutatorName: "M",
    status,
    replacement,
    location: { start: { line } }
  })
  const report = (...mutants: ReadonlyArray<ReturnType<typeof mutant>>) => ({ files: { "a.ts": { source, mutants } } })

  it("counts mutants that tests have killed among those that they could", () => {
    const mutants = [
      mutant("Killed", 1, "0"),
      mutant("Timeout", 1, "2"),
      mutant("Survived", 2, "true"),
      mutant("NoCoverage", 2, "a <= 2"),
      mutant("CompileError", 2, "x"),
      mutant("RuntimeError", 2, "y")
    ]
    const explained = { file: "a.ts", line: "const b = a < 2", replacement: "true", because: "a is 1" }
    assert.deepStrictEqual(scoreOf(report(...mutants), []), {
      killed: 2,
      explained: 0,
      survivors: ["a.ts:2 M: const b = a < 2 -> true", "a.ts:2 M: const b = a < 2 -> a <= 2"],
      percent: 50
    })
    assert.deepInclude(scoreOf(report(...mutants), [explained]), { killed: 2, explained: 1, percent: 200 / 3 })
    const twice = report(mutant("Survived", 2, "true"), mutant("Survived", 2, "true"))
    assert.deepInclude(scoreOf(twice, [explained]), { killed: 0, explained: 1, percent: 0 })
    assert.deepInclude(scoreOf(report(...mutants), [{ ...explained, file: "b.ts" }]), { explained: 0 })
    assert.strictEqual(scoreOf(report(), []).percent, 0)
  })

  it("changes sources that there are, and has pure tests to notice it", () => {
    const pure = pureTests(testFiles(root))
    for (const [room, { mutate, tests }] of Object.entries(mutatedRooms)) {
      assert.deepStrictEqual(
        mutate.filter((path) => !existsSync(join(root, path))),
        [],
        room
      )
      assert.includeMembers([...pure], [...tests], room)
    }
  })

  it("explains only changes of lines that there are", () => {
    const lost = equivalents.filter(
      ({ file, line }) =>
        !readFileSync(join(root, file), "utf8")
          .split("\n")
          .some((text) => text.trim() === line)
    )
    assert.deepStrictEqual(lost, [])
    for (const { because } of equivalents) assert.isNotEmpty(because)
  })
})
