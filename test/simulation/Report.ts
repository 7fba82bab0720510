/** What runs have done and found, for people. */
import { performance } from "node:perf_hooks"
import { type FaultKind, faultKinds, opKinds } from "./Plan.js"
import type { Result } from "./Run.js"
import { type Invariant, invariants } from "./Truth.js"

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
  private readonly sums = { operations: 0, statements: 0, time: 0, connections: 0 }
  private readonly faults = new Map<FaultKind, number>()
  private readonly checks = new Map<Invariant, number>()
  private readonly steps = new Map<string, number>()
  violations = 0
  private readonly failed: Array<string> = []

  add(result: Result): void {
    this.runs++
    for (const key of Object.keys(this.sums) as Array<keyof typeof this.sums>) this.sums[key] += result[key]
    for (const kind of faultKinds) this.faults.set(kind, (this.faults.get(kind) ?? 0) + (result.faults[kind] ?? 0))
    for (const name of invariants) this.checks.set(name, (this.checks.get(name) ?? 0) + (result.checks[name] ?? 0))
    for (const kind of opKinds) this.steps.set(kind, (this.steps.get(kind) ?? 0) + (result.steps[kind] ?? 0))
    this.violations += result.violations.length
    if (result.violations.length === 0) return
    this.failed.push(result.seed)
    for (const { invariant, message } of result.violations.slice(0, shown)) {
      console.log(`seed ${result.seed}: ${invariant}: ${message.split("\n").slice(0, 4).join("\n    ")}`)
    }
  }

  print(): void {
    const { connections, operations, statements, time } = this.sums
    const { failed } = this
    console.log(
      [
        `${number(this.runs)} seeds in ${duration(performance.now() - this.began)}: ${duration(time)} of virtual time`,
        `${number(operations)} operations, ${number(statements)} statements of theirs, ${number(connections)} connections`,
        `steps: ${[...this.steps].map(([kind, count]) => `${kind} ${number(count)}`).join(", ")}`,
        `${number(total(this.faults))} faults: ${list(this.faults)}`,
        `${number(total(this.checks))} checks: ${list(this.checks)}`,
        `${number(this.violations)} violations${failed.length > 0 ? ` in the seeds ${failed.join(", ")}` : ""}`,
        ...failed.slice(0, shown).map((seed) => `to see one again: npm run simulate -- --seed ${seed}`)
      ].join("\n")
    )
  }
}

const total = (counts: ReadonlyMap<string, number>): number =>
  [...counts.values()].reduce((sum, count) => sum + count, 0)

const list = (counts: ReadonlyMap<string, number>): string =>
  [...counts]
    .filter(([, count]) => count > 0)
    .map(([name, count]) => `${name} ${number(count)}`)
    .join(", ")

/** The history of one run. */
export const printOne = ({ fingerprint, history, operations, seed, time, violations }: Result): void => {
  for (const line of history) console.log(line)
  console.log(`seed ${seed}: ${operations} operations in ${number(time)} ms of virtual time, history ${fingerprint}`)
  for (const { invariant, message } of violations) console.log(`VIOLATION of "${invariant}": ${message}`)
}
