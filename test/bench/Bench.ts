/** All sections, one after the other, and what is printed of them. */
import { writeFileSync } from "node:fs"
import { Console, Effect } from "effect"
import { type Options, type Section, sections } from "./Arguments.js"
import * as Causal from "./Causal.js"
import * as Classify from "./Classify.js"
import type { Pace } from "./Measure.js"
import * as Others from "./Others.js"
import * as Overhead from "./Overhead.js"
import * as PgBouncer from "./PgBouncer.js"
import * as PgPool from "./PgPool.js"
import * as Replicas from "./Replicas.js"
import * as Report from "./Report.js"
import * as Requests from "./Requests.js"
import * as Results from "./Results.js"
import type { Line } from "./Row.js"
import * as Select from "./Select.js"
import * as Servers from "./Servers.js"
import * as Texts from "./Texts.js"
import * as Write from "./Write.js"

const paces = {
  thorough: { rounds: 120, sliceMillis: 80, warmUpMillis: 1_500 },
  quick: { rounds: 30, sliceMillis: 50, warmUpMillis: 500 }
} satisfies Record<string, Pace>

const measure = ({ only, quick }: Options) =>
  Effect.gen(function* () {
    const rows: Array<Line> = []
    const pace = quick ? paces.quick : paces.thorough
    const section = <E, R>(name: Section, run: Effect.Effect<ReadonlyArray<Line>, E, R>) =>
      only.has(name)
        ? Effect.flatMap(Console.error(`${name}: ${sections[name]} ...`), () =>
            Effect.map(run, (more) => {
              rows.push(...more)
            })
          )
        : Effect.void
    const postgres = yield* Effect.scoped(
      Effect.gen(function* () {
        const servers = yield* Servers.pair
        yield* section("select", Select.run(servers, pace))
        yield* section("others", Others.run(servers, pace))
        yield* section("requests", Requests.run(servers, pace))
        yield* section("write", Write.run(servers, pace))
        yield* section("rows", Results.run(servers, pace))
        yield* section("causal", Causal.run(servers, pace))
        yield* section("overhead", Overhead.run(servers, pace))
        yield* section("classify", Classify.run(servers, pace))
        yield* section(
          "texts",
          Texts.run(servers, quick ? 100_000 : 1_000_000, (done) => Console.error(`  ${done}`))
        )
        yield* section("pgpool", PgPool.run(servers, pace))
        yield* section("pgbouncer", PgBouncer.run(servers))
        const [version] = yield* servers.primary.query<{ server_version: string }>("SHOW server_version")
        return version!.server_version
      })
    )
    yield* Effect.scoped(section("replicas", Replicas.run(pace)))
    return { postgres, rows }
  })

export const run = (options: Options) =>
  Effect.gen(function* () {
    const began = new Date()
    const { postgres, rows } = yield* measure(options)
    const circumstances = Report.circumstances(postgres, began)
    const table = options.markdown
      ? Report.markdown(circumstances, rows)
      : `${Report.headline(circumstances)}\n\n${Report.table(rows)}`
    yield* Console.log(`\n${table}\n\n${Report.shortfalls(rows)}`)
    const { json } = options
    if (json !== undefined) {
      yield* Effect.sync(() => writeFileSync(json, Report.json(circumstances, rows)))
    }
  })
