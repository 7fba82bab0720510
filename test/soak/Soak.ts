/** All rows, one after the other, each on a cluster of its own. */
import { writeFileSync } from "node:fs"
import { Cause, Console, Effect } from "effect"
import { circumstances, headline } from "../bench/Report.js"
import type { Options } from "./Arguments.js"
import { type Pace, short, thorough } from "./Pace.js"
import * as Report from "./Report.js"
import { type ExternalRow, isMet, type Outcome, type Row, seconds } from "./Row.js"
import { external, rows } from "./rows/index.js"
import { cluster } from "./Servers.js"

/** Far more than any row takes. */
const limit = "6 minutes"

const start = (row: Row | ExternalRow, pace: Pace) =>
  "whyNot" in row ? row.run(pace) : Effect.flatMap(cluster, (servers) => row.run(servers, pace))

const measure = (row: Row | ExternalRow, options: Options): Effect.Effect<Outcome> =>
  Effect.flatMap("whyNot" in row ? row.whyNot : Effect.succeed(undefined), (why) =>
    why === undefined
      ? Effect.scoped(start(row, options.short ? short : thorough)).pipe(
          Effect.map((measured): Outcome => ({ _tag: "Measured", measured })),
          Effect.timeoutTo({
            duration: limit,
            onSuccess: (outcome) => outcome,
            onTimeout: (): Outcome => ({ _tag: "Broken", error: `What it waits for has not come within ${limit}` })
          })
        )
      : Effect.succeed<Outcome>({ _tag: "NotRun", why })
  ).pipe(
    Effect.catchAllCause((cause) =>
      Cause.isInterruptedOnly(cause)
        ? Effect.interrupt
        : Effect.succeed<Outcome>({ _tag: "Broken", error: Cause.pretty(cause) })
    )
  )

const postgres = Effect.scoped(
  Effect.flatMap(cluster, ({ primary }) =>
    Effect.map(primary.query<{ server_version: string }>("SHOW server_version"), ([row]) => row!.server_version)
  )
)

/** Tells whether every row is met. */
export const run = (options: Options) =>
  Effect.gen(function* () {
    const began = new Date()
    const version = yield* postgres
    const results: Array<Report.Result> = []
    for (const row of [...rows, ...external].filter(({ name }) => options.only.includes(name))) {
      yield* Console.error(`${row.name}: ${row.fault} ...`)
      const start = performance.now()
      const outcome = yield* measure(row, options)
      yield* Console.error(`  ${Report.verdict(outcome)} after ${seconds(performance.now() - start)}`)
      results.push({ row, outcome })
    }
    const found = circumstances(version, began)
    if (options.markdown) yield* Console.log(Report.markdown(headline(found), results))
    const print = options.markdown ? Console.error : Console.log
    yield* print(
      `\n${[headline(found), Report.table(results), Report.everywhere(results), Report.verdicts(results)].join("\n\n")}`
    )
    const { json } = options
    if (json !== undefined) yield* Effect.sync(() => writeFileSync(json, Report.json(found, results)))
    return results.every(({ outcome }) => outcome._tag === "NotRun" || isMet(outcome))
  })
