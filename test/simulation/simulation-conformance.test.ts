/** The simulated servers answer as real ones do: `test/simulation/conformance`. */
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { assert, beforeAll, describe, it } from "vitest"
import { scenarios } from "./conformance/scenarios.js"

const run = promisify(execFile)

const root = fileURLToPath(new URL("../..", import.meta.url))

/** What becomes of each scenario, in a process of its own: a simulated one has a clock of its own. */
const outcomes = async (how: "real" | "simulated"): Promise<ReadonlyMap<string, unknown>> => {
  const command = ["--import", "tsx", "test/simulation/conformance/main.ts", how]
  const { stdout } = await run(process.execPath, command, { cwd: root, maxBuffer: 2 ** 26 })
  const lines = stdout.split("\n").filter((line) => line !== "")
  return new Map(
    lines
      .map((line) => JSON.parse(line) as { readonly title: string; readonly outcome: unknown })
      .map((one) => [one.title, one.outcome])
  )
}

describe("a simulated server does as a real one does", () => {
  let real: ReadonlyMap<string, unknown>
  let simulated: ReadonlyMap<string, unknown>

  beforeAll(async () => {
    ;[simulated, real] = await Promise.all([outcomes("simulated"), outcomes("real")])
  }, 300_000)

  it("in at least 60 scenarios, each with a title of its own", () => {
    assert.isAtLeast(new Set(scenarios.map(({ title }) => title)).size, 60)
    assert.strictEqual(new Set(scenarios.map(({ title }) => title)).size, scenarios.length)
  })

  for (const { title } of scenarios) {
    it(title, () => {
      assert.isTrue(real.has(title))
      assert.notProperty(real.get(title), "failure", "the scenario has not been through")
      assert.deepStrictEqual(simulated.get(title), real.get(title))
    })
  }
})
