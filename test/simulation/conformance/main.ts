/**
 * Runs scenarios on a real cluster, or on simulated servers, and prints what becomes of each: one line of JSON for a scenario.
 *
 *   node --import tsx test/simulation/conformance/main.ts real [TITLE]
 *   node --import tsx test/simulation/conformance/main.ts simulated [TITLE]
 *   node --import tsx test/simulation/conformance/main.ts both [TITLE]     what differs, for people
 */
import { loadModule } from "libpg-query"
import { Cause, Effect, Exit } from "effect"
import { planOf } from "../Plan.js"
import { record } from "../Recorder.js"
import recordings from "../recordings.json" with { type: "json" }
import { runPlan } from "../Run.js"
import { type Recording, unknownTexts, useRecordings } from "../Statement.js"
import { cluster, runOn } from "./Real.js"
import { scenarios } from "./scenarios.js"
import { simulate } from "./Simulated.js"
import type { Scenario } from "./Site.js"

type Outcomes = ReadonlyMap<string, unknown>

/** An exit as plain data. */
const outcomeOf = (exit: Exit.Exit<unknown, unknown>): unknown =>
  Exit.isSuccess(exit) ? JSON.parse(JSON.stringify(exit.value ?? null)) : { failure: Cause.pretty(exit.cause) }

type Tell = (title: string, outcome: unknown) => void

const real = (chosen: ReadonlyArray<Scenario>, tell: Tell): Promise<void> =>
  Effect.gen(function* () {
    const shared = chosen.filter(({ isLast }) => !isLast)
    if (shared.length > 0) {
      yield* Effect.scoped(
        Effect.gen(function* () {
          const one = yield* cluster
          for (const scenario of shared) tell(scenario.title, outcomeOf(yield* runOn(one, scenario)))
        })
      )
    }
    for (const scenario of chosen.filter(({ isLast }) => isLast)) {
      const exit = yield* Effect.scoped(Effect.flatMap(cluster, (one) => runOn(one, scenario)))
      tell(scenario.title, outcomeOf(exit))
    }
  }).pipe(Effect.runPromise)

/** What is chance must not matter: each with several seeds. */
const seeds = ["1", "2", "3"]

const simulated = async (chosen: ReadonlyArray<Scenario>, tell: Tell): Promise<void> => {
  useRecordings(recordings as ReadonlyArray<Recording>)
  await loadModule()
  await runPlan({ ...planOf("warm"), faults: [] }, false)
  if (unknownTexts.size > 0) useRecordings(await record([...unknownTexts]))
  for (const scenario of chosen) {
    const outcomes: Array<unknown> = []
    for (const seed of seeds) outcomes.push(outcomeOf(await simulate(scenario, seed)))
    const isOne = outcomes.every((outcome) => JSON.stringify(outcome) === JSON.stringify(outcomes[0]))
    tell(scenario.title, isOne ? outcomes[0] : { "differs by chance": outcomes })
  }
}

const print: Tell = (title, outcome) => console.log(JSON.stringify({ title, outcome }))

const both = async (chosen: ReadonlyArray<Scenario>): Promise<boolean> => {
  const outcomes = { real: new Map<string, unknown>(), simulated: new Map<string, unknown>() }
  await simulated(chosen, (title, outcome) => outcomes.simulated.set(title, outcome))
  await real(chosen, (title, outcome) => outcomes.real.set(title, outcome))
  const show = (outcomes: Outcomes, title: string) => JSON.stringify(outcomes.get(title), undefined, 1).split("\n")
  let count = 0
  for (const { title } of chosen) {
    const one = show(outcomes.real, title)
    const other = show(outcomes.simulated, title)
    if (one.join("\n") === other.join("\n")) continue
    count++
    console.log(`\n## ${title}`)
    for (let i = 0; i < Math.max(one.length, other.length); i++) {
      if (one[i] === other[i]) console.log(`    ${one[i]}`)
      else console.log(`  - ${one[i] ?? ""}\n  + ${other[i] ?? ""}`)
    }
  }
  console.log(`${chosen.length} scenarios, ${count} differ (-: real, +: simulated)`)
  return count === 0
}

const [, , how, title = ""] = process.argv
const chosen = scenarios.filter((scenario) => scenario.title.includes(title))
if (how === "real") await real(chosen, print)
else if (how === "simulated") await simulated(chosen, print)
else process.exitCode = (await both(chosen)) ? 0 : 1
