/** COPY through the connection: refused with a reason wherever it is sent, before anything of it has run. */
import type { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Option, Stream } from "effect"
import { DbRouter, RouterError } from "effect-db-router"
import * as Sessions from "../support/session.js"

const copies = [
  "COPY note FROM STDIN",
  "copy note (id, v) from\n stdin (format csv)",
  "COPY (INSERT INTO note VALUES (7) RETURNING id) TO STDOUT",
  "-- all\nCOPY note TO STDOUT",
  "/* 'all */ COPY note TO STDOUT",
  "INSERT INTO note VALUES (8); COPY note TO STDOUT"
]

layer(Sessions.layerWith(), { excludeTestServices: true, timeout: "2 minutes" })(
  "COPY through the connection",
  (it) => {
    for (const [name, run] of Object.entries(Sessions.ways)) {
      it.effect(`in ${name} is refused, and nothing of it is done`, () =>
        Effect.gen(function* () {
          yield* Sessions.setUp
          for (const copy of copies) {
            const refused: Effect.Effect<unknown, unknown, DbRouter.DbRouter | SqlClient.SqlClient> = run(copy)
            const error = yield* Effect.flip(refused)
            assert.strictEqual(Option.getOrUndefined(RouterError.reasonOf(error)), "CopyUnsupported", copy)
            assert.strictEqual(RouterError.outcomeOf(error), "not done", copy)
          }
          assert.deepStrictEqual(yield* Sessions.stored, [])
          yield* Sessions.assertQuiet
        })
      )
    }

    it.effect("leaves a transaction, and a stream of it, as they are", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        yield* DbRouter.session(
          Effect.gen(function* () {
            yield* Sessions.insert(1)
            for (const copy of copies) {
              yield* Effect.flip(sql.unsafe(copy))
              yield* Effect.flip(Stream.runDrain(sql.unsafe(copy).stream))
            }
            yield* Sessions.insert(2)
          })
        )
        assert.deepStrictEqual(yield* Sessions.stored, [1, 2])
      })
    )

    it.effect("that no text shows ends its connection, and nothing hangs", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        // Who reads this text without the rules of E'' takes all of it for a literal.
        const hidden = String.raw`SELECT E'\''; COPY note TO STDOUT; SELECT ''`
        for (const run of [
          sql.unsafe(hidden),
          DbRouter.session(sql.unsafe(hidden)),
          sql.withTransaction(sql.unsafe(hidden))
        ]) {
          yield* Effect.flip(Effect.timeout(run, "20 seconds"))
          yield* Sessions.assertQuiet
        }
        yield* Sessions.insert(1)
      })
    )

    it.effect("is not what a file, a value or a name makes of the word", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        yield* sql`INSERT INTO note VALUES (1, 'copy note to stdout'), (2, '; COPY note FROM STDIN')`
        yield* sql.unsafe(`INSERT INTO note SELECT id + 2, v FROM note AS "copy x to stdout" -- copy note to stdout`)
        yield* sql.unsafe("COPY note TO PROGRAM 'cat > /dev/null'")
        assert.deepStrictEqual(yield* Sessions.stored, [1, 2, 3, 4])
      })
    )
  }
)
