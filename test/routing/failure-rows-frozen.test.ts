/**
 * Servers that stand still: connections stay open, and nothing ever answers.
 *
 * What bounds the waiting there. A read outside transactions, and a stream before its first row, run elsewhere as soon as the
 * probes say that the server is down: after `health.failures` probes of `health.timeout` each. A session's transaction can go
 * nowhere, and no limit that the server itself keeps (`statement_timeout`) holds while it stands still: there the driver's
 * own limit counts (`query_timeout` in the URL), and its connection is closed. Connecting is bounded by `connectTimeout`.
 */
import { SqlClient, type SqlError } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Duration, Effect, Fiber, Logger, Redacted, Stream } from "effect"
import { DbRouter, RouterError } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as engines from "../support/engine.js"
import * as Failures from "../support/failures.js"
import { becomes, over } from "../support/health.js"
import { enginesOf, spansOf } from "../support/router.js"

const { routed } = Failures

/** Freezes a server, and has it go on at the end of the scope at the latest. */
const frozen = (node: PgCluster.Node) => Effect.acquireRelease(node.freeze, () => Effect.orDie(node.thaw))

/** Fails when it takes longer than anything here may. */
const bounded = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.timeoutFail(effect, { duration: "20 seconds", onTimeout: () => new Error("It hangs") })

/** How many rows a read has, and its span. */
const answerOf = <E, R>(read: Effect.Effect<Iterable<object>, E, R>) =>
  Effect.map(spansOf(read), ([rows, [span]]) => ({ rows: [...rows].length, span }))

const health = { interval: "500 millis", timeout: "400 millis", failures: 2 } as const

engines.refuseWarnings()

layer(PgCluster.layer({ replicas: 2 }), { timeout: "60 seconds", excludeTestServices: true })(
  "a server that stands still",
  (it) => {
    it.scoped("a read and a stream before its first row move on; one that has rows waits for the server", () =>
      routed(
        (replica) =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            const pulled: Array<number> = []
            const rows = sql<{ i: number }>`SELECT i, repeat('x', 1000) FROM generate_series(1, 3000) AS i /* some */`
            const some = yield* Effect.fork(
              Stream.runForEach(rows.stream, ({ i }) =>
                Effect.zipRight(
                  Effect.sync(() => void pulled.push(i)),
                  i === 100 ? Effect.sleep("2 seconds") : Effect.void
                )
              )
            )
            const read = yield* Effect.fork(answerOf(sql.unsafe(`SELECT ${Failures.sleeping} /* read */`)))
            const stream = sql.unsafe(`SELECT 1 AS n, ${Failures.sleeping}::text /* stream */`).stream
            const streamed = yield* Effect.fork(answerOf(Stream.runCollect(stream)))
            yield* Failures.backendOf(replica, "/* read */")
            yield* Failures.backendOf(replica, "/* stream */")
            yield* engines.eventually(
              Effect.sync(() => pulled.length),
              (length) => length >= 100
            )
            yield* frozen(replica)
            for (const fiber of [read, streamed]) {
              const { rows, span } = yield* bounded(Fiber.join(fiber))
              assert.strictEqual(rows, 1)
              assert.strictEqual(span!.attributes.get("db.router.engine"), "primary")
              assert.strictEqual(span!.attributes.get("db.router.failed"), "replica1: it stopped answering")
            }
            yield* becomes("replica1", "down")
            // What comes later goes there no more.
            assert.deepStrictEqual(yield* bounded(enginesOf(sql`SELECT 1`)), ["primary"])
            yield* replica.thaw
            yield* bounded(Fiber.join(some))
            assert.strictEqual(pulled.length, 3000)
            yield* becomes("replica1", "up")
          }),
        { health }
      )
    )

    it.scoped("a hedged read has its answer before anybody knows that the server stands still", () =>
      Effect.gen(function* () {
        const { primary, replicas } = yield* PgCluster.PgCluster
        yield* Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          yield* Effect.replicateEffect(sql`SELECT 1`, 4)
          yield* frozen(replicas[0]!)
          const seen = yield* bounded(enginesOf(Effect.replicateEffect(sql`SELECT 1`, 6)))
          assert.deepStrictEqual([...new Set(seen)], ["replica2"])
        }).pipe(
          Effect.provide(
            over(primary, replicas, {
              hedge: { after: "30 millis", maxShare: 1 },
              health: { interval: "1 minute", timeout: "1 second" }
            })
          ),
          Effect.provide(Logger.replace(Logger.defaultLogger, Logger.none))
        )
      })
    )

    for (const [what, session] of [
      ["on the primary", (body: Effect.Effect<unknown, SqlError.SqlError>) => DbRouter.session(DbRouter.primary(body))],
      [
        "on a replica",
        (body: Effect.Effect<unknown, SqlError.SqlError>) =>
          DbRouter.session(body, { reads: "snapshot", readOnly: true })
      ]
    ] as const) {
      it.scoped(`a session ${what} fails within the driver's time limit, and its connection is closed`, () =>
        Effect.gen(function* () {
          const { primary, replicas } = yield* PgCluster.PgCluster
          const node = what === "on a replica" ? replicas[0]! : primary
          const at = (node: PgCluster.Node) => ({
            url: Redacted.make(`${Redacted.value(node.url)}?query_timeout=1500`),
            name: node.name,
            connectTimeout: "1 second" as const
          })
          const router = over(primary, replicas, {
            groups: { default: [at(primary)], read: [at(replicas[0]!)] },
            health: false
          })
          yield* Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* Effect.replicateEffect(sql`SELECT 1`, 2)
            const thawed = yield* bounded(
              Effect.gen(function* () {
                const [elapsed, error] = yield* Effect.timed(
                  Effect.flip(
                    session(
                      Effect.zipRight(
                        sql`SELECT 'before'`,
                        Effect.zipRight(Effect.orDie(node.freeze), sql`SELECT 'after'`)
                      )
                    )
                  )
                )
                assert.strictEqual(engines.stateOf(error), "Query read timeout")
                assert.strictEqual(RouterError.outcomeOf(error), "not done")
                return elapsed
              })
            ).pipe(Effect.ensuring(Effect.orDie(node.thaw)))
            // And not the time more that a rollback may take.
            assert.isAbove(Duration.toMillis(thawed), 1_000)
            assert.isBelow(Duration.toMillis(thawed), 5_000)
            const { status } = yield* DbRouter.DbRouter
            yield* engines.eventually(status, (all) => all.every(({ pool }) => pool.idle === pool.total))
            assert.strictEqual((yield* sql`SELECT 1 AS n`).length, 1)
          }).pipe(Effect.provide(router), Effect.provide(Logger.replace(Logger.defaultLogger, Logger.none)))
        })
      )
    }

    it.scoped("a session cannot begin there: it reads on the primary, within connectTimeout", () =>
      routed(
        (replica) =>
          Effect.gen(function* () {
            yield* frozen(replica)
            const sql = yield* SqlClient.SqlClient
            const where = sql`SELECT current_setting('cluster_name') AS name`
            assert.deepStrictEqual(yield* bounded(DbRouter.readOnly(where)), [{ name: "primary" }])
          }),
        { health: false, on: { connectTimeout: "500 millis" } }
      )
    )
  }
)
