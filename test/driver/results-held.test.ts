/** A result that is more than the process can hold fails; the process lives, and so do the results of others. */
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Budget, Held } from "../../src/internal/driver/held.js"

describe("results that are being read", () => {
  it("fail together at the limit, those first that hold much", () => {
    const budget = new Budget(1_000_000)
    const [large, small] = [new Held(budget), new Held(budget)]
    small.add(1_000)
    assert.throws(() => {
      for (let i = 0; i < 1_000; i++) large.add(10_000)
    }, /hold more than 1 MB.*as a stream/)
    // The other one goes on.
    for (let i = 0; i < 50; i++) small.add(1_000)
    large.clear()
    assert.isBelow(budget.total, 100_000)
    small.clear()
    small.clear()
    assert.deepStrictEqual([budget.total, budget.holders], [0, 0])
  })

  it("do not end the process, though a server sends rows for ever", async () => {
    const file = fileURLToPath(new URL("../support/endless-child.ts", import.meta.url))
    const child = spawn(process.execPath, ["--max-old-space-size=128", "--import", "tsx", file], {
      stdio: ["ignore", "pipe", "inherit"]
    })
    let said = ""
    child.stdout.on("data", (data) => {
      said += String(data)
    })
    const code = await new Promise((resolve) => child.once("close", resolve))
    assert.deepStrictEqual(
      [code, said.trim().split("\n")],
      [0, [...Array.from({ length: 4 }, () => "ResultTooLarge"), "then 1"]]
    )
  }, 120_000)
})
