/** Part of `npm run soak -- fuzz`: what a server must not say ends a connection, never the process. */
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"

/** How many conversations: they take about half a minute. */
const count = 12_000

/** A process that says nothing for so long stands still, in milliseconds: it says something every second. */
const silence = 40_000

const run = (args: ReadonlyArray<string>) =>
  new Promise<{ readonly code: number | null; readonly output: string }>((resolve) => {
    const main = fileURLToPath(new URL("main.ts", import.meta.url))
    const child = spawn(process.execPath, ["--import", "tsx", main, ...args])
    let output = ""
    let timer = setTimeout(() => child.kill("SIGKILL"), silence)
    const hear = (chunk: Buffer) => {
      output += chunk
      clearTimeout(timer)
      timer = setTimeout(() => {
        output += "FAILS The process stands still"
        child.kill("SIGKILL")
      }, silence)
    }
    child.stdout.on("data", hear)
    child.stderr.on("data", hear)
    child.on("close", (code) => {
      clearTimeout(timer)
      resolve({ code, output })
    })
  })

describe("conversations with a server, changed in every way", () => {
  it("throw nothing but the errors of statements, and all that was asked is answered once", {
    timeout: 300_000
  }, async () => {
    const { code, output } = await run(["--count", String(count)])
    const lines = output.split("\n").filter((line) => /^fuzz|FAILS|Error/.test(line))
    assert.strictEqual(code, 0, lines.join("\n"))
    assert.match(output, /12000 changed conversations, \d{4,} answers, \d{4,} errors, 0 exceptions/)
  })
})
