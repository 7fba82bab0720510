import { readdirSync, readFileSync } from "node:fs"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import type { Plan } from "./Plan.js"
import { Workers } from "./Workers.js"

const folder = new URL("plans/", import.meta.url)

const time = 120_000

/** Plans that have found faults of the library, each of which is mended. */
describe("what the simulator has found does not come back:", () => {
  let workers: Workers

  beforeAll(async () => {
    workers = await Workers.start(1)
  }, time)

  afterAll(() => workers.stop(), time)

  for (const file of readdirSync(folder)) {
    it(
      file.replace(".json", "").replaceAll("-", " "),
      async () => {
        const plan = JSON.parse(readFileSync(new URL(file, folder), "utf8")) as Plan
        const { operations, violations } = await workers.runOne({ seed: plan.seed, plan })
        assert.deepStrictEqual(violations, [])
        assert.isAbove(operations, 0)
      },
      time
    )
  }
})
