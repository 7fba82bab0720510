import { closeSync, openSync } from "node:fs"
import { parseArgs } from "node:util"

export interface Options {
  readonly only: ReadonlyArray<string>
  readonly short: boolean
  readonly json: string | undefined
  readonly markdown: boolean
  readonly help: boolean
}

export const help = (
  rows: ReadonlyArray<{ readonly name: string; readonly fault: string }>
) => `npm run soak [-- --only ROW] [-- --short] [-- --json FILE] [-- --markdown]

Puts a router over a real cluster under a steady, mixed load, injects a fault, and measures
what its users notice. It exits with 1 when a row does not show what it must.

  --only ROW    only this row; may be given several times:
${rows.map(({ fault, name }) => `                  ${name.padEnd(20)} ${fault}`).join("\n")}
  --short       shorter phases, and shorter times of the router
  --json FILE   writes all figures there too
  --markdown    prints the table of the README, and nothing else, to the standard output
  --help        this text

npm run soak -- fuzz [--count N] [--seed N] [--only CASE]

Feeds the driver conversations with a real server, changed in every way: 100,000 unless another count is given.

npm run soak -- endings [--count N] [--seed N] [--only SEED] [--unit TEXT] [--workers N] [--real]

Interrupts units of work at every stage, on servers that answer late or never: 10,000 combinations unless another count is
given. With --real on a real cluster behind proxies that delay what is said: 1,000.
`

/** Throws an error that says what is wrong. */
export const parse = (args: ReadonlyArray<string>, rows: ReadonlyArray<{ readonly name: string }>): Options => {
  const { values } = parseArgs({
    args: [...args],
    options: {
      only: { type: "string", multiple: true },
      short: { type: "boolean" },
      json: { type: "string" },
      markdown: { type: "boolean" },
      help: { type: "boolean", short: "h" }
    }
  })
  const names = rows.map(({ name }) => name)
  const unknown = (values.only ?? []).find((name) => !names.includes(name))
  if (unknown !== undefined) throw new Error(`Unknown row ${unknown}; there are ${names.join(", ")}`)
  // A run takes minutes: better to know before it that its results have no place.
  if (values.json !== undefined) closeSync(openSync(values.json, "a"))
  return {
    only: values.only ?? names,
    short: values.short ?? false,
    json: values.json,
    markdown: values.markdown ?? false,
    help: values.help ?? false
  }
}
