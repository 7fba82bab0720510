/**
 * The long form of `test/endings/endings.test.ts`: units of work that are interrupted at every stage, on servers that answer late or
 * never. `--real`: on a real cluster behind proxies that delay what is said. `--only SEED` runs one combination again, `--unit TEXT` those of some units.
 */
import { parseArgs } from "node:util"
import { Effect } from "effect"
import { PgCluster } from "effect-db-router/testing"
import * as endings from "../support/endings.js"

const { values } = parseArgs({
  options: {
    count: { type: "string" },
    seed: { type: "string" },
    only: { type: "string" },
    unit: { type: "string" },
    workers: { type: "string" },
    real: { type: "boolean" }
  }
})
const count = values.only === undefined ? Number(values.count ?? (values.real ? 1_000 : 10_000)) : 1
const first = Number(values.only ?? values.seed ?? 1)
const workers = Number(values.workers ?? (values.real ? 8 : 32))

const combinations: Array<endings.Combination> = []
for (let seed = first; combinations.length < count; seed++) {
  const combination = endings.combinationOf(seed)
  if (values.unit === undefined || combination.unit.includes(values.unit)) combinations.push(combination)
}

let told = performance.now()
const progress = (done: number) => {
  if (performance.now() - told < 10_000) return
  told = performance.now()
  console.error(`${done} of ${count}`)
}
const onCluster = Effect.scoped(
  Effect.gen(function* () {
    const cluster = yield* PgCluster.make({ replicas: 1 })
    yield* endings.prepare(cluster)
    return yield* endings.run(combinations, workers, progress, endings.realRigOf(cluster))
  })
)
const { counts, failures } = await Effect.runPromise(
  values.real ? onCluster : endings.run(combinations, workers, progress)
)
for (const unit of endings.unitNames) console.log(`${unit.padEnd(45)} ${String(counts.get(unit) ?? 0).padStart(6)}`)
console.log(`endings: ${count} combinations from seed ${first}, ${failures.length} broken`)
for (const failure of failures) console.log(`FAILS seed ${failure.combination.seed} ${endings.lineOf(failure)}`)
process.exit(failures.length === 0 ? 0 : 1)
