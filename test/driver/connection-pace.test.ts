import { assert, describe, it } from "vitest"
import { Pace } from "../../src/internal/engine/pace.js"

describe("the turns of connections that are opened one at a time", () => {
  it("are not all taken by probes of a server that stays away", async () => {
    const pace = new Pace(
      () => performance.now(),
      () => 0
    )
    const turns: Array<string> = []
    await new Promise<void>((resolve) => {
      const probe = () => {
        turns.push("probe")
        if (turns.length < 4) pace.await(probe, true)
        else resolve()
        return true
      }
      pace.await(probe, true)
      pace.await(() => {
        turns.push("statement")
        return true
      })
    })
    assert.deepStrictEqual(turns, ["probe", "statement", "probe", "probe"])
  })
})
