/** Many rows at once, and many rows one batch after the other: time, and the most memory in use while they are there. */
import type { SqlClient, SqlError } from "@effect/sql"
import { Effect, Stream } from "effect"
import { compare, effects, type Pace, perRound, speed, summary } from "./Measure.js"
import * as Memory from "./Memory.js"
import { digits, each, type Row } from "./Row.js"
import { items, type Pair } from "./Servers.js"

interface Case {
  readonly what: string
  /** `arrived` is called with rows in hand. */
  readonly run: (sql: SqlClient.SqlClient, arrived: () => void) => Effect.Effect<unknown, SqlError.SqlError>
  /** How many arrivals there are from one look at the memory to the next. */
  readonly arrivalsPerLook: number
}

const query = (sql: SqlClient.SqlClient, rows: number) =>
  sql`SELECT id, name, price, in_stock FROM item WHERE id <= ${rows}`

const cases: ReadonlyArray<Case> = [
  {
    what: "a SELECT of 10,000 rows",
    run: (sql, arrived) =>
      Effect.map(query(sql, 10_000), (rows) => {
        arrived()
        return rows.length
      }),
    arrivalsPerLook: 1
  },
  {
    what: `.stream of ${items.toLocaleString("en-US")} rows`,
    run: (sql, arrived) =>
      Stream.runForEachChunk(query(sql, items).stream, (rows) =>
        Effect.sync(() => {
          arrived()
          return rows.length
        })
      ),
    arrivalsPerLook: 50
  }
]

const speeds = ({ run, what }: Case, clients: ReadonlyArray<SqlClient.SqlClient>, pace: Pace) =>
  Effect.map(
    compare(
      clients.map((sql) => effects(1, () => run(sql, () => {}))),
      // One operation may take longer than a slice is to be.
      { ...pace, rounds: Math.ceil(pace.rounds / 2) }
    ),
    ([against, routed]): Row => ({
      section: "rows",
      what,
      against: "PgClient",
      reach: { atLeast: 1 },
      unit: "x",
      measured: speed(against!, routed!),
      detail: each(routed!, against!, "ms")
    })
  )

const peak = ({ arrivalsPerLook, run }: Case, sql: SqlClient.SqlClient) =>
  Effect.suspend(() => {
    const memory = Memory.peak()
    let arrivals = 0
    const arrived = () => {
      if (++arrivals % arrivalsPerLook === 0) memory.look()
    }
    return Effect.map(run(sql, arrived), () => memory.megabytes)
  }).pipe(
    // What the one before has left on the stack is held until then.
    Effect.delay("50 millis")
  )

// Megabytes, not their ratio: a stream holds so little that a socket's buffer would double it.
const peaks = (one: Case, clients: ReadonlyArray<SqlClient.SqlClient>, { rounds }: Pace) =>
  Effect.gen(function* () {
    const all: ReadonlyArray<Array<number>> = clients.map(() => [])
    // The first round warms up.
    for (let round = 0; round <= Math.ceil(rounds / 10); round++) {
      for (const [i, sql] of clients.entries()) {
        const megabytes = yield* peak(one, sql)
        if (round > 0) all[i]!.push(megabytes)
      }
    }
    const [against, routed] = all
    const row: Row = {
      section: "rows",
      what: `${one.what}: more memory in use`,
      against: "PgClient",
      reach: { atMost: 0.1 },
      unit: "MB",
      measured: perRound(against!, routed!, (a, b) => b - a),
      detail: `${digits(summary(routed!).median)} MB at most; the other ${digits(summary(against!).median)}`
    }
    return row
  })

export const run = ({ plainReplica, router }: Pair, pace: Pace) =>
  Effect.gen(function* () {
    const clients = [plainReplica, router.client]
    const rows: Array<Row> = []
    for (const one of cases) rows.push(yield* speeds(one, clients, pace), yield* peaks(one, clients, pace))
    return rows
  })
