/**
 * What a replica refuses because it is behind, or set up in another way: the primary's answer counts. Here the replica has
 * not replayed what the primary has.
 */
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { DbRouter } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as Failures from "../support/failures.js"

const { failuresOf, refusalOf, routed } = Failures

/** Runs an effect while the replica replays nothing. */
const paused = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.flatMap(PgCluster.PgCluster, ({ awaitReplayed, replicas }) =>
    Effect.zipRight(awaitReplayed, replicas[0]!.pauseReplay).pipe(
      Effect.zipRight(effect),
      Effect.ensuring(Effect.orDie(Effect.zipRight(replicas[0]!.resumeReplay, awaitReplayed)))
    )
  )

/** What an administrator does on the primary. */
const done = (...statements: ReadonlyArray<string>) =>
  Effect.flatMap(PgCluster.PgCluster, ({ primary }) =>
    Effect.forEach(statements, (statement) => primary.query(statement), { discard: true })
  )

layer(PgCluster.layer({ replicas: 1 }), { timeout: "60 seconds", excludeTestServices: true })(
  "a read of what a replica does not have yet",
  (it) => {
    for (const [state, before, after, text] of [
      ["42P01", [], ["CREATE TABLE later AS SELECT 1 AS n"], "SELECT n FROM later"],
      ["42703", ["CREATE TABLE has (n int)"], ["ALTER TABLE has ADD more int"], "SELECT more FROM has"],
      [
        "42883",
        [],
        ["CREATE FUNCTION twice(n int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 2 * n'"],
        "SELECT twice(21)"
      ],
      ["42704", [], ["CREATE TYPE mood AS ENUM ('fine')"], "SELECT 'fine'::mood::text"]
    ] as const) {
      it.scoped(`${state}: from the primary`, () =>
        routed(() =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* done(...before)
            yield* paused(
              Effect.gen(function* () {
                // A migration through the router, so that it knows of the change.
                for (const statement of after) yield* sql.unsafe(statement)
                yield* DbRouter.reset
                const read = DbRouter.replica(sql.unsafe(text))
                assert.deepStrictEqual(yield* failuresOf(read), [`replica1: ${state} -> primary`])
                yield* Failures.stays
              })
            )
            const read = DbRouter.replica(sql.unsafe(text))
            assert.deepStrictEqual(yield* failuresOf(read), [])
          })
        )
      )
    }

    it.scoped("42501, a privilege: from the primary; what the primary refuses too is the caller's", () =>
      Effect.gen(function* () {
        yield* done(
          "CREATE ROLE reader LOGIN PASSWORD 'reader'",
          "CREATE TABLE granted AS SELECT 1 AS n",
          "CREATE TABLE secret (n int)"
        )
        const as = { username: "reader", password: Redacted.make("reader") }
        yield* Effect.flatMap(PgCluster.PgCluster, ({ awaitReplayed }) => awaitReplayed)
        yield* routed(
          () =>
            paused(
              Effect.gen(function* () {
                const sql = yield* SqlClient.SqlClient
                yield* done("GRANT SELECT ON granted TO reader")
                assert.deepStrictEqual(yield* failuresOf(sql`SELECT n FROM granted`), ["replica1: 42501 -> primary"])
                const [state, failed] = yield* refusalOf(sql`SELECT n FROM secret`)
                assert.deepStrictEqual([state, failed], ["42501", ["replica1: 42501"]])
                yield* Failures.stays
              })
            ),
          { on: as, primary: as }
        )
      })
    )

    for (const [state, what, before, after] of [
      ["28000", "a role that may not log in", "CREATE ROLE late NOLOGIN PASSWORD 'late'", "ALTER ROLE late LOGIN"],
      ["28P01", "another password", "ALTER ROLE late LOGIN PASSWORD 'early'", "ALTER ROLE late PASSWORD 'late'"]
    ] as const) {
      it.scoped(`${state}, ${what}: from the primary`, () =>
        Effect.gen(function* () {
          yield* done(before)
          yield* paused(
            Effect.gen(function* () {
              yield* done(after)
              const as = { username: "late", password: Redacted.make("late") }
              yield* routed(
                () =>
                  Effect.gen(function* () {
                    const sql = yield* SqlClient.SqlClient
                    assert.deepStrictEqual(yield* failuresOf(sql`SELECT 1`), [`replica1: ${state} -> primary`])
                  }),
                { on: as, primary: as, health: false }
              )
            })
          )
        })
      )
    }

    it.scoped("22023, a role that the session's settings name: from the primary; a value is the caller's", () =>
      routed(() =>
        paused(
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* done("CREATE ROLE fresh")
            const as = (role: string) => DbRouter.session({ settings: { role } })
            const who = sql`SELECT current_user::text AS who, pg_is_in_recovery() AS "isReplica"`
            assert.deepStrictEqual(yield* as("fresh")(who), [{ who: "fresh", isReplica: false }])
            assert.deepStrictEqual(yield* as("pg_monitor")(who), [{ who: "pg_monitor", isReplica: true }])
            const [state, failed] = yield* refusalOf(sql`SELECT date_part(${"nonsense"}, interval '1 day')`)
            assert.deepStrictEqual([state, failed], ["22023", []])
            yield* Failures.stays
          })
        )
      )
    )

    it.scoped("3D000, a database: from the primary", () =>
      paused(
        Effect.gen(function* () {
          yield* done("CREATE DATABASE young")
          const in_ = { database: "young" }
          yield* routed(
            () =>
              Effect.gen(function* () {
                const sql = yield* SqlClient.SqlClient
                assert.deepStrictEqual(yield* failuresOf(sql`SELECT 1`), ["replica1: 3D000 -> primary"])
              }),
            { on: in_, primary: in_, health: false }
          )
        })
      )
    )
  }
)
