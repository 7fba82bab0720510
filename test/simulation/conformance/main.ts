/**
 * Runs scenarios on a real cluster, or on simulated servers, and prints what becomes of each: one line of JSON for a scenario.
 *
 *   node --import tsx test/simulation/conformance/main.ts real [TITLE]
 *   node --import tsx test/simulation/conformance/main.ts simulated [TITLE]
 *   node --import tsx test/simulation/conformance/main.ts both [TITLE]     what differs, for people
 */

import { Cause, Effect, Exit } from "effect"
import { loadModule } from "libpg-query"
import { planOf } from "../Plan.js"
import { record } from "../Recorder.js"
import { runPlan } from "../Run.js"
import recordings from "../recordings.json" with { type: "json" }
import { type Recording, unknownTexts, useRecordings } from "../Statement.js"
import { cluster, runOn } from "./Real.js"
import { simulate } from "./Simulated.js"
import { maxConnections, type Scenario } from "./Site.js"
import { scenarios } from "./scenarios.js"

type Outcomes = ReadonlyMap<string, unknown>

/** An exit as plain data. */
const outcomeOf = (exit: Exit.Exit<unknown, unknown>): unknown =>
  Exit.isSuccess(exit) ? JSON.parse(JSON.stringify(exit.value ?? null)) : { failure: Cause.pretty(exit.cause) }

const isFailure = (outcome: unknown): boolean => typeof outcome === "object" && outcome !== null && "failure" in outcome

type Tell = (title: string, outcome: unknown) => void

const real = (chosen: ReadonlyArray<Scenario>, tell: Tell): Promise<void> =>
  Effect.gen(function* () {
    const shared = chosen.filter(({ isLast }) => !isLast)
    if (shared.length > 0) {
      yield* Effect.scoped(
        Effect.gen(function* () {
          // The primary alone: a standby does not start with fewer than its primary has had once.
          const one = yield* cluster({ max_connections: String(maxConnections) })
          for (const scenario of shared) tell(scenario.title, outcomeOf(yield* runOn(one, scenario)))
        })
      )
    }
    for (const scenario of chosen.filter(({ isLast }) => isLast)) {
      const exit = yield* Effect.scoped(Effect.flatMap(cluster(), (one) => runOn(one, scenario)))
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

/** Two lists of lines, with what is only in the first one, or only in the second one, marked. */
const compare = (one: ReadonlyArray<string>, other: ReadonlyArray<string>): ReadonlyArray<string> => {
  // How many lines the rest of both have in common.
  const common = Array.from({ length: one.length + 1 }, () => new Array<number>(other.length + 1).fill(0))
  for (let i = one.length - 1; i >= 0; i--) {
    for (let j = other.length - 1; j >= 0; j--) {
      common[i]![j] =
        one[i] === other[j] ? common[i + 1]![j + 1]! + 1 : Math.max(common[i + 1]![j]!, common[i]![j + 1]!)
    }
  }
  const lines: Array<string> = []
  let [i, j] = [0, 0]
  while (i < one.length || j < other.length) {
    if (i < one.length && j < other.length && one[i] === other[j]) {
      lines.push(`    ${one[i++]}`)
      j++
    } else if (j >= other.length || (i < one.length && common[i + 1]![j]! >= common[i]![j + 1]!)) {
      lines.push(`  - ${one[i++]}`)
    } else lines.push(`  + ${other[j++]}`)
  }
  return lines
}

const both = async (chosen: ReadonlyArray<Scenario>): Promise<boolean> => {
  const outcomes = { real: new Map<string, unknown>(), simulated: new Map<string, unknown>() }
  await simulated(chosen, (title, outcome) => outcomes.simulated.set(title, outcome))
  await real(chosen, (title, outcome) => outcomes.real.set(title, outcome))
  const show = (outcomes: Outcomes, title: string) => JSON.stringify(outcomes.get(title), undefined, 1).split("\n")
  let count = 0
  for (const { title } of chosen) {
    const [one, other] = [show(outcomes.real, title), show(outcomes.simulated, title)]
    const isThrough = !isFailure(outcomes.real.get(title))
    if (isThrough && one.join("\n") === other.join("\n")) continue
    count++
    console.log([`\n## ${title}`, ...compare(one, other)].join("\n"))
  }
  console.log(`${chosen.length} scenarios, ${count} differ, or are not through (-: real, +: simulated)`)
  return count === 0
}

const [, , how, title = ""] = process.argv
const chosen = scenarios.filter((scenario) => new RegExp(title).test(scenario.title))
if (how === "real") await real(chosen, print)
else if (how === "simulated") await simulated(chosen, print)
else process.exitCode = (await both(chosen)) ? 0 : 1
