/** What runs have done and found, for people. */
import { performance } from "node:perf_hooks"
import { type FaultKind, faultKinds } from "./Plan.js"
import type { Result } from "./Run.js"

const number = (value: number) => Math.round(value).toLocaleString("en")

const duration = (millis: number): string => {
  const hours = millis / 3_600_000
  return hours >= 1 ? `${hours.toFixed(1)} hours` : `${(millis / 60_000).toFixed(1)} minutes`
}

/** How many violations of one run are printed. */
const shown = 3

export class Summary {
  private readonly began = performance.now()
  private runs = 0
  private readonly sums = { operations: 0, statements: 0, checks: 0, time: 0, connections: 0 }
  private readonly faults = new Map<FaultKind, number>()
  violations = 0
  private readonly failed: Array<string> = []

  add(result: Result): void {
    this.runs++
    for (const key of Object.keys(this.sums) as Array<keyof typeof this.sums>) this.sums[key] += result[key]
    for (const kind of faultKinds) this.faults.set(kind, (this.faults.get(kind) ?? 0) + (result.faults[kind] ?? 0))
    this.violations += result.violations.length
    if (result.violations.length === 0) return
    this.failed.push(result.seed)
    for (const { invariant, message } of result.violations.slice(0, shown)) {
      console.log(`seed ${result.seed}: ${invariant}: ${message.split("\n").slice(0, 4).join("\n    ")}`)
    }
  }

  print(): void {
    const { checks, connections, operations, statements, time } = this.sums
    const faults = [...this.faults].filter(([, count]) => count > 0)
    console.log(
      [
        `${number(this.runs)} seeds in ${duration(performance.now() - this.began)}: ${duration(time)} of virtual time`,
        `${number(operations)} operations, ${number(statements)} statements of theirs, ${number(connections)} connections`,
        `${number(faults.reduce((sum, [, count]) => sum + count, 0))} faults: ${faults.map(([kind, count]) => `${kind} ${number(count)}`).join(", ")}`,
        `${number(checks)} checks, ${number(this.violations)} violations${this.failed.length > 0 ? ` in the seeds ${this.failed.join(", ")}` : ""}`
      ].join("\n")
    )
  }
}

/** The history of one run. */
export const printOne = ({ fingerprint, history, operations, seed, time, violations }: Result): void => {
  for (const line of history) console.log(line)
  console.log(`seed ${seed}: ${operations} operations in ${number(time)} ms of virtual time, history ${fingerprint}`)
  for (const { invariant, message } of violations) console.log(`VIOLATION of "${invariant}": ${message}`)
}
