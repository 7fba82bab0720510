/**
 * `npm run bench`: what the router costs and gains, as ratios from one run in which everything takes turns.
 */
import { closeSync, openSync, writeFileSync } from "node:fs"
import { parseArgs } from "node:util"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Cause, Console, Effect } from "effect"
import * as Classify from "./Classify.js"
import type { Pace } from "./Measure.js"
import * as Overhead from "./Overhead.js"
import * as Replicas from "./Replicas.js"
import * as Report from "./Report.js"
import * as Results from "./Results.js"
import type { Row } from "./Row.js"
import * as Select from "./Select.js"
import * as Servers from "./Servers.js"
import * as Texts from "./Texts.js"
import * as Write from "./Write.js"

const sections = {
  select: "a SELECT by primary key, at 1, 10 and 50 fibers",
  write: "INSERT, UPDATE, transactions and sessions, at 10 fibers",
  rows: "10,000 rows at once, 100,000 as a stream: time and memory",
  overhead: "what routing costs when no server answers",
  classify: "the classifier alone",
  replicas: "1, 2 and 4 replicas whose pools are the bottleneck",
  texts: "memory over 1,000,000 distinct texts"
}

type Section = keyof typeof sections

const notMeasured = `Not measured yet:
  against kysely-replication, TypeORM, Sequelize, Prisma and postgres (not installed here)
  against pgpool-II (Debian's pgpool2: apt-get install pgpool2)
  a causal read after a write, and the cost of routing with metrics on`

const help = `npm run bench [-- --only NAME] [-- --quick] [-- --json FILE]

Measures on real servers what the router costs and gains. Whatever is compared takes turns
in short slices; a figure is the median of what the rounds say, with the quartiles. It is a
measurement, not a test: it exits with 0 whether the figures are met or not.

  --only NAME   only this section; may be given several times:
${Object.entries(sections)
  .map(([name, about]) => `                  ${name.padEnd(9)} ${about}`)
  .join("\n")}
  --quick       fewer and shorter rounds, and 100,000 texts
  --json FILE   writes the figures there too
  --help        this text

${notMeasured}
`

interface Options {
  readonly only: ReadonlySet<Section>
  readonly quick: boolean
  readonly json: string | undefined
  readonly help: boolean
}

const isSection = (name: string): name is Section => Object.hasOwn(sections, name)

/** Throws an error that says what is wrong. */
const parse = (args: ReadonlyArray<string>): Options => {
  const { values } = parseArgs({
    args: [...args],
    options: {
      only: { type: "string", multiple: true },
      quick: { type: "boolean" },
      json: { type: "string" },
      help: { type: "boolean", short: "h" }
    }
  })
  const names = Object.keys(sections).filter(isSection)
  const only = (values.only ?? []).map((name) => {
    if (isSection(name)) return name
    throw new Error(`Unknown section ${name}; there are ${names.join(", ")}`)
  })
  // A run takes minutes: better to know before it that its results have no place.
  if (values.json !== undefined) closeSync(openSync(values.json, "a"))
  return {
    only: new Set(only.length === 0 ? names : only),
    quick: values.quick ?? false,
    json: values.json,
    help: values.help ?? false
  }
}

const paces = {
  thorough: { rounds: 120, sliceMillis: 80, warmUpMillis: 1_500 },
  quick: { rounds: 30, sliceMillis: 50, warmUpMillis: 500 }
} satisfies Record<string, Pace>

const measure = ({ only, quick }: Options) =>
  Effect.gen(function* () {
    const rows: Array<Row> = []
    const pace = quick ? paces.quick : paces.thorough
    const section = <E, R>(name: Section, run: Effect.Effect<ReadonlyArray<Row>, E, R>) =>
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
        yield* section("write", Write.run(servers, pace))
        yield* section("rows", Results.run(servers, pace))
        yield* section("overhead", Overhead.run(servers, pace))
        yield* section("classify", Classify.run(servers, pace))
        yield* section(
          "texts",
          Texts.run(servers, quick ? 100_000 : 1_000_000, (done) => Console.error(`  ${done}`))
        )
        const [version] = yield* servers.primary.query<{ server_version: string }>("SHOW server_version")
        return version!.server_version
      })
    )
    yield* Effect.scoped(section("replicas", Replicas.run(pace)))
    return { postgres, rows }
  })

const run = (options: Options) =>
  Effect.gen(function* () {
    const began = new Date()
    const { postgres, rows } = yield* measure(options)
    const circumstances = Report.circumstances(postgres, began)
    const lines = [Report.headline(circumstances), Report.table(rows), Report.shortfalls(rows), notMeasured]
    yield* Console.log(`\n${lines.join("\n\n")}`)
    const { json } = options
    if (json !== undefined) {
      yield* Effect.sync(() => writeFileSync(json, Report.json(circumstances, rows)))
    }
  })

const main = Effect.try({ try: () => parse(process.argv.slice(2)), catch: (error) => error as Error }).pipe(
  Effect.flatMap((options) => (options.help ? Console.log(help) : run(options)))
)

const report = (cause: Cause.Cause<unknown>) =>
  Cause.isInterruptedOnly(cause)
    ? Effect.void
    : Cause.isFailType(cause) && cause.error instanceof Error
      ? Console.error(cause.error.message)
      : Console.error(Cause.pretty(cause))

NodeRuntime.runMain(Effect.tapErrorCause(main, report), { disableErrorReporting: true })
