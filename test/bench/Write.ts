/** Writes and units of work, in ten fibers that do not wait for each other's rows. */
import type { SqlClient, SqlError } from "@effect/sql"
import { Effect } from "effect"
import { DbRouter } from "effect-db-router"
import { compare, effects, type Pace, speed } from "./Measure.js"
import { each, type Row } from "./Row.js"
import type { Pair } from "./Servers.js"

const fibers = 10

type Operation = (sql: SqlClient.SqlClient, fiber: number) => Effect.Effect<unknown, SqlError.SqlError>

const insert: Operation = (sql, fiber) => sql`INSERT INTO entry ${sql.insert({ account: fiber + 1, amount: 1 })}`

const update: Operation = (sql, fiber) => sql`UPDATE account SET balance = balance + ${1} WHERE id = ${fiber + 1}`

const read: Operation = (sql, fiber) => sql`SELECT id, balance FROM account WHERE id = ${fiber + 1}`

const unit: Operation = (sql, fiber) =>
  Effect.zipRight(Effect.zipRight(update(sql, fiber), insert(sql, fiber)), read(sql, fiber))

const transaction: Operation = (sql, fiber) => sql.withTransaction(unit(sql, fiber))

interface Case {
  readonly what: string
  readonly against: string
  readonly plain: Operation
  readonly routed: Operation
}

const cases = (router: DbRouter.DbRouter): ReadonlyArray<Case> => [
  { what: "an INSERT", against: "PgClient", plain: insert, routed: insert },
  { what: "an UPDATE by primary key", against: "PgClient", plain: update, routed: update },
  {
    what: "withTransaction of UPDATE, INSERT, SELECT",
    against: "PgClient's withTransaction",
    plain: transaction,
    routed: transaction
  },
  {
    what: "a session of UPDATE, INSERT, SELECT",
    against: "PgClient's withTransaction",
    plain: transaction,
    routed: (sql, fiber) => Effect.provideService(DbRouter.session(unit(sql, fiber)), DbRouter.DbRouter, router)
  }
]

export const run = ({ plainPrimary, router }: Pair, pace: Pace) =>
  Effect.forEach(cases(router), ({ against, plain, routed, what }) =>
    compare(
      [
        effects(fibers, (fiber) => plain(plainPrimary, fiber)),
        effects(fibers, (fiber) => routed(router.client, fiber))
      ],
      pace
    ).pipe(
      Effect.map(
        ([without, measured]): Row => ({
          section: "write",
          what: `${what}, ${fibers} fibers`,
          against,
          reach: { atLeast: 1 },
          unit: "x",
          measured: speed(without!, measured!),
          detail: each(measured!, without!)
        })
      ),
      Effect.ensuring(DbRouter.reset)
    )
  )
