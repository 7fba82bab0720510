/**
 * `npm run checker`: whether reads miss writes of their own flow, or go back in time, while servers are paused, delayed,
 * killed and promoted; and what that costs.
 */
import { writeFileSync } from "node:fs"
import { cpus } from "node:os"
import { parseArgs } from "node:util"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Effect } from "effect"
import { check, measure, type Policy } from "./Checker.js"
import { checkedTable, isCheap, isSound, json, leastShare, measuredTable } from "./Report.js"

const help = `npm run checker [-- --reads N] [-- --troubles N] [-- --promotions N] [-- --seed N] [-- --markdown] [-- --json FILE]

  --reads N       reads of each policy while servers are in trouble, at least (default: 50000)
  --troubles N    troubles of each policy, at least (default: 15)
  --promotions N  how often a standby takes the place of the primary, for each policy, at most (default: 3)
  --seed N        other clients, another order of troubles (default: 1)
  --markdown      prints the tables alone, as the README has them
  --json FILE     writes all figures there too
  --help          this text
`

const { values } = parseArgs({
  options: {
    reads: { type: "string", default: "50000" },
    troubles: { type: "string", default: "15" },
    promotions: { type: "string", default: "3" },
    seed: { type: "string", default: "1" },
    markdown: { type: "boolean", default: false },
    json: { type: "string" },
    help: { type: "boolean", short: "h" }
  }
})

const healthy = `With healthy servers, and one write to nine reads; the extra round trips a read are those that it waits for, or that follow it
elsewhere, those a write are asked for in the background:`

const circumstances = `${cpus().length} cores, Node ${process.versions.node.split(".")[0]}, ${new Date().toISOString().slice(0, 10)}.`

const numberOf = (name: "reads" | "troubles" | "promotions" | "seed"): number => {
  const value = Number(values[name])
  if (!Number.isInteger(value) || value < 0) throw new Error(`--${name} must be a whole number`)
  return value
}

const main = Effect.gen(function* () {
  if (values.help === true) return yield* Console.log(help)
  const seed = numberOf("seed")
  const options = {
    seed,
    reads: numberOf("reads"),
    troubles: numberOf("troubles"),
    promotions: numberOf("promotions"),
    clients: 16,
    trouble: 300
  }
  const checked = yield* Effect.forEach(["causal", "eventual"] as const, (policy: Policy) =>
    Effect.tap(check(policy, options), ({ deeds, findings, seconds }) =>
      Console.error(
        `${policy}: ${findings.reads} reads in ${Math.round(seconds)} s; ${deeds.length} troubles; ` +
          `${findings.failedWrites} writes failed`
      )
    )
  )
  const measured = yield* measure(["causal", "sticky", "window of 2 s", "eventual"], {
    seed,
    rounds: 32,
    reads: 1_000,
    clients: 8
  })
  const tables = `${checkedTable(checked)}\n\n${healthy}\n\n${measuredTable(measured)}`
  yield* Console.log(values.markdown ? `${tables}\n\n${circumstances}` : `\n${tables}\n`)
  if (values.json !== undefined) writeFileSync(values.json, JSON.stringify(json(checked, measured), undefined, 2))
  if (!checked.every(isSound) || !measured.every(isCheap)) {
    yield* Console.error(
      `Not met: no violation and no failed read with causal, some violations with eventual, and at least ${100 * leastShare}% of the reads on replicas`
    )
    process.exitCode = 1
  }
})

NodeRuntime.runMain(main)
