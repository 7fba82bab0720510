import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Fiber, Layer, Option, Random } from "effect"
import { DbRouter, RouterError } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"

const maxConnections = 8

const Live = Layer.unwrapEffect(
  Effect.map(PgCluster.PgCluster, ({ primary }) =>
    // Hundreds of its connections are ended on purpose: nothing to probe, and nothing to log.
    DbRouter.layer({ groups: { default: [{ url: primary.url, name: "primary", maxConnections }] }, health: false })
  )
).pipe(Layer.provideMerge(PgCluster.layer({ replicas: 0 })))

const endings = ["success", "failure", "defect", "interruption", "broken connection"] as const

interface Outcome {
  readonly rows: ReadonlyArray<number>
  readonly ending: (typeof endings)[number]
  /** What the session said of itself, by its hooks: nothing, where it cannot know. */
  readonly said: "committed" | "rolled back" | undefined
  readonly exit: Exit.Exit<void, unknown>
}

const chooseEnding = Effect.map(Random.nextIntBetween(0, 100), (n): Outcome["ending"] =>
  n < 40 ? "success" : n < 60 ? "failure" : n < 75 ? "defect" : n < 96 ? "interruption" : "broken connection"
)

/** One session that writes one to three rows and ends in one of the ways, at one of the points. */
const one = (i: number): Effect.Effect<Outcome, never, SqlClient.SqlClient | DbRouter.DbRouter> =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const ending = yield* chooseEnding
    const rows = Array.from({ length: yield* Random.nextIntBetween(1, 4) }, (_, k) => i * 10 + k)
    const point = yield* Random.nextIntBetween(0, rows.length + 1)
    const nested = yield* Random.nextBoolean
    const delay = yield* Random.nextIntBetween(0, 12)
    let said: Outcome["said"]
    const end = Effect.suspend((): Effect.Effect<void, unknown> => {
      switch (ending) {
        case "failure":
          return Effect.fail("on purpose")
        case "defect":
          return Effect.die("on purpose")
        case "broken connection":
          return Effect.flatMap(sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`, ([row]) =>
            DbRouter.detached(sql`SELECT pg_terminate_backend(${row!.pid}, 5000)`)
          )
        default:
          return Effect.void
      }
    })
    const body = Effect.gen(function* () {
      yield* DbRouter.afterCommit(Effect.sync(() => (said = "committed")))
      yield* DbRouter.afterRollback(Effect.sync(() => (said = "rolled back")))
      for (const [k, id] of rows.entries()) {
        if (k === point) yield* end
        const write = sql`INSERT INTO kept (id) VALUES (${id})`
        yield* nested ? sql.withTransaction(write) : write
      }
      if (point === rows.length) yield* end
    })
    const fiber = yield* Effect.fork(DbRouter.session(body))
    if (ending === "interruption") {
      yield* Effect.sleep(Duration.millis(delay))
      yield* Fiber.interrupt(fiber)
    }
    const exit = yield* Fiber.await(fiber)
    return { rows, ending, said, exit: Exit.asVoid(exit) }
  })

const isUnknown = (exit: Outcome["exit"]): boolean =>
  Exit.isFailure(exit) &&
  Option.exists(Cause.failureOption(exit.cause), (error) =>
    Option.contains(RouterError.reasonOf(error), "OutcomeUnknown")
  )

layer(Live, { timeout: "60 seconds", excludeTestServices: true })("10,000 sessions that end at random", (it) => {
  for (const seed of ["one", "two"]) {
    it.effect(
      `with the seed ${seed}: what was committed is there, nothing else is, and nothing stays open`,
      () =>
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const router = yield* DbRouter.DbRouter
          const { primary } = yield* PgCluster.PgCluster
          yield* sql`DROP TABLE IF EXISTS kept`
          yield* sql`CREATE UNLOGGED TABLE kept (id int PRIMARY KEY)`

          const outcomes = yield* Effect.forEach(
            Array.from({ length: 5_000 }, (_, i) => i),
            (i) => Effect.withRandom(one(i), Random.make(`${seed} ${i}`)),
            { concurrency: 24 }
          )

          const stored = new Set((yield* primary.query<{ id: number }>("SELECT id FROM kept")).map(({ id }) => id))
          for (const { ending, exit, rows, said } of outcomes) {
            const present = rows.filter((id) => stored.has(id)).length
            const about = `${ending}, ${said}: ${present} of ${rows.length}, ${exit}`
            assert.include([0, rows.length], present, about)
            if (!isUnknown(exit)) assert.strictEqual(present > 0, said === "committed", about)
            if (Exit.isSuccess(exit)) assert.strictEqual(said, "committed", about)
          }
          for (const ending of endings) {
            assert.isAbove(outcomes.filter((outcome) => outcome.ending === ending).length, 50, ending)
          }
          assert.isAbove(
            outcomes.filter(({ ending, exit }) => ending === "interruption" && Exit.isFailure(exit)).length,
            50
          )

          const [engine] = yield* router.status
          assert.deepInclude(engine!, { inFlight: 0 })
          assert.deepInclude(engine!.pool, { waiting: 0, max: maxConnections, idle: engine!.pool.total })
          const activity = yield* primary.query<{ state: string; n: number }>(
            `SELECT state, count(*)::int AS n FROM pg_stat_activity
           WHERE application_name = 'effect-db-router' GROUP BY state`
          )
          assert.deepStrictEqual(activity, [{ state: "idle", n: engine!.pool.total }])
        }),
      240_000
    )
  }
})
