import { fileURLToPath } from "node:url"
import { assert, it } from "@effect/vitest"
import { failure, node } from "../support/run.js"

it("takes a token through a queue to a worker in another process", { timeout: 110_000 }, async () => {
  const ended = await node(["--import", "tsx", "examples/queue/main.ts"], {
    cwd: fileURLToPath(new URL("../..", import.meta.url)),
    timeoutMillis: 100_000
  })
  assert.strictEqual(failure(ended), "")
  const lines = ended.stdout.trim().split("\n")
  assert.match(lines[0]!, /^No replica has it, without the token: no such order, read on replica\d$/)
  assert.strictEqual(lines[1], "No replica has it, with the token: a total of 42, read on primary")
  assert.match(lines[2]!, /^The replicas have it, with the token: a total of 42, read on replica\d$/)
  assert.strictEqual(lines.length, 3)
})
