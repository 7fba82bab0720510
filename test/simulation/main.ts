/**
 * Runs the library against simulated servers.
 *
 *   npm run simulate -- --seeds 1000           seeds 1 to 1000
 *   npm run simulate -- --seeds 100 --from 500
 *   npm run simulate -- --seed 42              one, with its history
 *   npm run simulate -- --shrink 42            the smallest plan that fails as that seed does, and its history
 *   npm run simulate -- --plan FILE            a plan, such as --shrink prints
 *   npm run simulate -- --planted all          faults put into a copy of the library, and how soon each is found
 *   npm run simulate -- --planted all --write  the same, and puts the table into docs/simulation.md
 *   npm run simulate -- --record               asks a real server again what the simulated ones answer
 *   npm run simulate -- --twice 20             20 seeds, each twice: the histories have to be the same
 */
import { readFileSync, writeFileSync } from "node:fs"
import { availableParallelism } from "node:os"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import type { Plan } from "./Plan.js"
import { findAll, planted } from "./Planted.js"
import { head, rowOf, writeRows } from "./PlantedTable.js"
import { printOne, Summary } from "./Report.js"
import { shrink } from "./Shrink.js"
import type { Recording } from "./Statement.js"
import { forgetRecordings, readRecordings, Workers } from "./Workers.js"

const { values } = parseArgs({
  options: {
    seeds: { type: "string" },
    from: { type: "string", default: "1" },
    seed: { type: "string" },
    shrink: { type: "string" },
    twice: { type: "string" },
    plan: { type: "string" },
    record: { type: "boolean", default: false },
    planted: { type: "string", multiple: true },
    write: { type: "boolean", default: false },
    most: { type: "string", default: "2000" },
    workers: { type: "string", default: String(Math.min(2, availableParallelism())) }
  }
})

const count = Number(values.workers)

const range = function* (from: number, count: number) {
  for (let i = from; i < from + count; i++) yield { seed: String(i) }
}

const within = async <A>(workers: Workers, use: (workers: Workers) => Promise<A>): Promise<A> => {
  try {
    return await use(workers)
  } finally {
    await workers.stop()
  }
}

const many = async (from: number, seeds: number): Promise<boolean> =>
  within(await Workers.start(count), async (workers) => {
    const summary = new Summary()
    await workers.run(range(from, seeds), (result) => {
      summary.add(result)
      return true
    })
    summary.print()
    return summary.violations === 0
  })

const one = async (seed: string, plan: Plan | undefined): Promise<boolean> =>
  within(await Workers.start(1), async (workers) => {
    const result = await workers.runOne({ seed, plan, isTold: true })
    printOne(result)
    return result.violations.length === 0
  })

const smallest = async (seed: string): Promise<boolean> =>
  within(await Workers.start(1), async (workers) => {
    const plan = await shrink(workers, seed)
    if (plan === undefined) {
      console.log(`Seed ${seed} violates nothing.`)
      return true
    }
    console.log(JSON.stringify(plan, undefined, 2))
    printOne(await workers.runOne({ seed, plan, isTold: true }))
    return false
  })

const twice = async (seeds: number): Promise<boolean> =>
  within(await Workers.start(count), async (workers) => {
    const histories = new Map<string, ReadonlyArray<string>>()
    const different = new Set<string>()
    const all = [...range(1, seeds)]
    const jobs = [...all, ...all.toReversed()].map((job) => ({ ...job, isTold: true }))
    let violations = 0
    await workers.run(jobs, ({ history, seed, violations: found }) => {
      for (const { invariant, message } of found) console.log(`seed ${seed}: ${invariant}: ${message}`)
      violations += found.length
      const before = histories.get(seed)
      histories.set(seed, history)
      const at = before === undefined ? -1 : history.findIndex((line, i) => line !== before[i])
      if (before === undefined || (at < 0 && before.length === history.length)) return true
      different.add(seed)
      console.log(`seed ${seed}: "${history[at]}" in the place of "${before[at]}"`)
      return true
    })
    console.log(
      `${seeds} seeds ran twice, ${different.size} with another history${different.size > 0 ? `: ${[...different].join(", ")}` : ""}`
    )
    return different.size === 0 && violations === 0
  })

/** Forgets what is recorded, so that a real server is asked again. */
const recordings = async (): Promise<boolean> => {
  const path = fileURLToPath(new URL("recordings.json", import.meta.url))
  const write = (recordings: ReadonlyArray<Recording>) =>
    writeFileSync(path, `${JSON.stringify(recordings, undefined, 2)}\n`)
  write([])
  await forgetRecordings()
  await within(await Workers.start(1), async () => {})
  const all = await readRecordings()
  write(all)
  console.log(`${all.length} answers recorded.`)
  return true
}

const plantedFaults = async (names: ReadonlyArray<string>): Promise<boolean> => {
  const chosen = planted.filter(({ name }) => names.some((start) => start === "all" || name.startsWith(start)))
  let missed = 0
  const order = planted.map(({ name }) => name)
  console.log(head)
  await findAll(chosen, Number(values.most), count, ({ name }, found) => {
    if (found.by === undefined) missed++
    const row = rowOf(name, found)
    console.log(row)
    if (values.write) writeRows([row], order)
  })
  return chosen.length > 0 && missed === 0
}

const run = (): Promise<boolean> => {
  if (values.planted !== undefined) return plantedFaults(values.planted)
  if (values.record) return recordings()
  if (values.seed !== undefined) return one(values.seed, undefined)
  if (values.plan !== undefined) {
    const plan = JSON.parse(readFileSync(values.plan, "utf8")) as Plan
    return one(plan.seed, plan)
  }
  if (values.shrink !== undefined) return smallest(values.shrink)
  if (values.twice !== undefined) return twice(Number(values.twice))
  return many(Number(values.from), Number(values.seeds ?? "100"))
}

process.exitCode = (await run()) ? 0 : 1
