import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, Fiber, Request, RequestResolver, Schedule, Stream } from "effect"
import { Consistency, DbRouter } from "effect-db-router"
import * as Causal from "../support/causal.js"
import * as RouterTest from "../support/router.js"

const { explained, insert, insertOutside, look, newId, sees, standingStill } = Causal

const eventual = RouterTest.router({ consistency: Consistency.eventual() })

/** Reads until this engine answers. Every engine that answers before must have the row, too. */
const until = (id: number, name: string) =>
  Effect.repeat(look(id), {
    until: ([found, engine]) => {
      assert.isTrue(found)
      return engine === name
    },
    schedule: Schedule.spaced("5 millis")
  }).pipe(Effect.timeout("10 seconds"))

layer(Causal.layer({ consistency: Consistency.causal() }), { excludeTestServices: true, timeout: "2 minutes" })(
  "causal reads",
  (it) => {
    /** A test whose replicas stand still. */
    const still = <E, R extends RouterTest.Services>(name: string, effect: Effect.Effect<unknown, E, R>) =>
      it.effect(name, () => standingStill(effect))

    still(
      "are the primary's while no replica has the write",
      Effect.gen(function* () {
        const id = yield* newId
        assert.strictEqual((yield* explained).group, "read")
        yield* insert(id)
        assert.deepStrictEqual(yield* look(id), [true, "primary"])
        assert.deepStrictEqual(yield* look(id), [true, "primary"])
        const { group, reason } = yield* explained
        assert.strictEqual(group, "default")
        assert.match(reason, /^causal: no replica is known to have/)
        yield* DbRouter.reset
        assert.isFalse(yield* sees(id))
        // The same with eventual finds nothing: this test can fail.
        assert.isFalse(yield* Effect.zipRight(insert(yield* newId), sees(id)).pipe(Effect.provide(eventual)))
      })
    )

    it.effect("are another replica's as soon as that has the write, and all replicas' in the end", () =>
      Effect.gen(function* () {
        const [first, second] = (yield* RouterTest.PgCluster.PgCluster).replicas
        const id = yield* newId
        yield* standingStill(
          Effect.gen(function* () {
            yield* insert(id)
            // On a busy machine the first reads may have waited in vain.
            yield* until(id, second!.name)
            for (let i = 0; i < 6; i++) assert.deepStrictEqual(yield* look(id), [true, second!.name])
            assert.strictEqual((yield* explained).reason, "causal: it has what the flow has seen")
          }),
          1
        )
        yield* until(id, first!.name)
      })
    )

    it.effect("are shared by the replicas, while others write all the time", () =>
      Effect.gen(function* () {
        const writing = yield* Effect.fork(
          Effect.forever(Effect.zipRight(Effect.flatMap(newId, insert), Effect.yieldNow()))
        )
        const id = yield* newId
        yield* insert(id)
        const served = new Map<unknown, number>()
        // None is passed over for ever because what is known of it is old.
        const names = ["replica1", "replica2"]
        const isShared = () => names.every((name) => (served.get(name) ?? 0) >= 40)
        // On a busy machine one of them may be behind for a while.
        for (let i = 0; i < 400 || (i < 4_000 && !isShared()); i++) {
          const [, engine] = yield* look(id)
          served.set(engine, (served.get(engine) ?? 0) + 1)
        }
        yield* Fiber.interrupt(writing)
        for (const name of names) assert.isAtLeast(served.get(name) ?? 0, 40, name)
      })
    )

    it.effect("are replicas' after a write, when those are well", () =>
      Effect.gen(function* () {
        const engines: Array<unknown> = []
        for (let i = 0; i < 50; i++) {
          const id = yield* newId
          yield* insert(id)
          const [found, engine] = yield* look(id)
          assert.isTrue(found)
          engines.push(engine)
        }
        const share = engines.filter((engine) => engine !== "primary").length / engines.length
        assert.isAtLeast(share, 0.5)
      })
    )

    it.effect("see what was committed asynchronously, where the written position lies", () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        for (let i = 0; i < 150; i++) {
          const id = yield* newId
          yield* sql.withTransaction(Effect.zipRight(sql`SET LOCAL synchronous_commit = off`, insert(id)))
          assert.deepStrictEqual(yield* sees(id), true, String(i))
        }
      })
    )

    still(
      "go on with a transaction's commit",
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const id = yield* newId
        yield* sql.withTransaction(insert(id))
        assert.deepStrictEqual(yield* look(id), [true, "primary"])
      })
    )

    still(
      "see what a session has committed, from its end on and in the session after an early commit",
      Effect.gen(function* () {
        const [one, two] = [yield* newId, yield* newId]
        yield* DbRouter.session(
          Effect.gen(function* () {
            yield* insert(one)
            yield* DbRouter.commit("default")
            assert.deepStrictEqual(yield* look(one), [true, "primary"])
            yield* insert(two)
          })
        )
        assert.deepStrictEqual(yield* look(two), [true, "primary"])
        yield* DbRouter.reset
        yield* DbRouter.newSession(Effect.flatMap(newId, insert))
        assert.strictEqual((yield* explained).group, "default")
      })
    )

    still(
      "see the writes of children that are joined, not of those that are never joined",
      Effect.gen(function* () {
        const [one, two, three] = [yield* newId, yield* newId, yield* newId]
        yield* Effect.flatMap(Effect.forkDaemon(insert(one)), Fiber.await)
        assert.strictEqual((yield* explained).group, "read")
        yield* Effect.flatMap(Effect.fork(insert(two)), Fiber.join)
        assert.deepStrictEqual(yield* look(two), [true, "primary"])
        yield* DbRouter.reset
        yield* Effect.all([insert(three), sees(two)], { concurrency: "unbounded" })
        assert.deepStrictEqual(yield* look(three), [true, "primary"])
        // A child has what its parent has.
        assert.deepStrictEqual(yield* Effect.flatMap(Effect.fork(look(three)), Fiber.join), [true, "primary"])
        assert.deepStrictEqual(yield* Effect.flatMap(Effect.forkDaemon(look(three)), Fiber.join), [true, "primary"])
      })
    )

    still(
      "see what a resolver has written, and read, for the requests that it has answered",
      Effect.gen(function* () {
        const [one, two] = [yield* newId, yield* insertOutside]
        class Run extends Request.Class<boolean, unknown, { readonly id: number; readonly isWrite: boolean }> {}
        const sql = yield* SqlClient.SqlClient
        const resolver = RequestResolver.makeBatched((requests: ReadonlyArray<Run>) =>
          Effect.forEach(
            requests,
            (request) => {
              const { id, isWrite } = request
              const read = Effect.map(
                DbRouter.primary(sql`SELECT id FROM note WHERE id = ${id}`),
                (rows) => rows.length === 1
              )
              const run = isWrite ? Effect.as(sql`INSERT INTO note (id) VALUES (${id})`, true) : read
              return Effect.flatMap(Effect.exit(run), (exit) => Request.complete(request, exit))
            },
            { discard: true }
          )
        )
        assert.isTrue(yield* Effect.request(new Run({ id: two, isWrite: false }), resolver))
        assert.isTrue(yield* sees(two))
        yield* DbRouter.reset
        assert.isFalse(yield* sees(two))
        assert.isTrue(yield* Effect.request(new Run({ id: one, isWrite: true }), resolver))
        assert.deepStrictEqual(yield* look(one), [true, "primary"])
      })
    )

    still(
      "see a write that was interrupted, whatever became of it",
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const id = yield* newId
        const after = yield* Deferred.make<string>()
        // What runs in the same fiber after the interruption.
        const slow = Effect.onInterrupt(
          sql`WITH made AS (INSERT INTO note (id) VALUES (${id}) RETURNING id) SELECT pg_sleep(30) FROM made`,
          () => Effect.ignore(Effect.flatMap(explained, ({ group }) => Deferred.succeed(after, group)))
        )
        const fiber = yield* Effect.fork(slow)
        yield* Effect.sleep("100 millis")
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(yield* Deferred.await(after), "default")
      })
    )

    still(
      "see a write that was streamed, and one on a reserved connection that commits later",
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const [one, two] = [yield* newId, yield* newId]
        yield* Stream.runDrain(sql`INSERT INTO note (id) VALUES (${one}) RETURNING id`.stream)
        assert.deepStrictEqual(yield* look(one), [true, "primary"])
        yield* DbRouter.reset
        yield* Effect.scoped(
          Effect.gen(function* () {
            const connection = yield* sql.reserve
            const run = (text: string) => connection.executeRaw(text, [])
            yield* run("BEGIN")
            yield* run(`INSERT INTO note (id) VALUES (${two})`)
            assert.deepStrictEqual(yield* look(two), [false, "primary"])
            yield* run("COMMIT")
            assert.deepStrictEqual(yield* look(two), [true, "primary"])
          })
        )
      })
    )

    still(
      "see DDL and texts of several statements, whose positions are asked with the next read",
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const [one, two] = [yield* newId, yield* newId]
        yield* sql.unsafe(`INSERT INTO note (id) VALUES (${one}); INSERT INTO note (id) VALUES (${two})`)
        assert.deepStrictEqual(yield* look(two), [true, "primary"])
        yield* DbRouter.reset
        yield* sql`CREATE TABLE made (id int)`
        assert.deepStrictEqual(yield* sql`SELECT * FROM made`, [])
        yield* sql`DROP TABLE made`
        assert.strictEqual(yield* Effect.flip(sql`COPY note (id) FROM STDIN`).pipe(Effect.as("refused")), "refused")
        assert.isTrue(yield* DbRouter.primary(sees(one)))
      })
    )

    it.effect("never go back in time: not to a replica that stands still", () => {
      const goBack = Effect.gen(function* () {
        const [first, second] = (yield* RouterTest.PgCluster.PgCluster).replicas
        let backwards = 0
        yield* standingStill(
          Effect.gen(function* () {
            for (let i = 0; i < 10; i++) {
              const id = yield* insertOutside
              yield* Effect.repeat(second!.query("SELECT 1 FROM note WHERE id = $1", [id]), {
                until: (rows) => rows.length === 1
              })
              // A flow of its own.
              yield* Effect.flatMap(
                Effect.forkDaemon(
                  Effect.gen(function* () {
                    let seen = false
                    for (let read = 0; read < 8; read++) {
                      const [found, engine] = yield* look(id)
                      if (seen && !found) backwards++
                      seen ||= found
                      if (engine === first!.name && seen && read > 0) assert.isFalse(found)
                    }
                  })
                ),
                Fiber.join
              )
            }
          }),
          1
        )
        return backwards
      })
      return Effect.gen(function* () {
        assert.strictEqual(yield* goBack, 0)
        assert.isAbove(yield* goBack.pipe(Effect.provide(eventual)), 0)
      })
    })

    still(
      "never go back in time: what was read on the primary, in transactions and in children",
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const reads = [
          (id: number) => DbRouter.primary(sees(id)),
          (id: number) => sql.withTransaction(sees(id)),
          (id: number) =>
            Effect.map(sql`SELECT id, pg_current_snapshot() FROM note WHERE id = ${id}`, (rows) => rows.length === 1),
          (id: number) => DbRouter.session(DbRouter.primary(sees(id))),
          (id: number) => Effect.flatMap(Effect.fork(DbRouter.primary(sees(id))), Fiber.join),
          (id: number) =>
            DbRouter.stream.primary(sql`SELECT id FROM note WHERE id = ${id}`.stream).pipe(
              Stream.runCount,
              Effect.map((count) => count === 1)
            ),
          (id: number) =>
            Effect.exit(sql.withTransaction(Effect.zipRight(sees(id), Effect.fail("rolled back")))).pipe(
              Effect.as(true)
            )
        ]
        for (const [i, read] of reads.entries()) {
          yield* DbRouter.reset
          const id = yield* insertOutside
          assert.isFalse(yield* sees(id), `${i} before`)
          assert.isTrue(yield* read(id), `${i}`)
          assert.isTrue(yield* sees(id), `${i} after`)
          assert.isTrue(yield* sees(id), `${i} later`)
        }
      })
    )

    still(
      "of a snapshot begin where the flow's writes are",
      Effect.gen(function* () {
        const id = yield* newId
        yield* insert(id)
        assert.isTrue(yield* DbRouter.readOnly(sees(id)))
        assert.isTrue(
          yield* DbRouter.readOnly(Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(sees(id))))
        )
      })
    )

    still(
      "inside replica(...) are replicas' even after a write; setStickyPrimary is the primary's for every policy",
      Effect.gen(function* () {
        const id = yield* newId
        yield* insert(id)
        assert.isFalse(yield* DbRouter.replica(sees(id)))
        assert.isTrue(yield* sees(id))
      })
    )
  }
)
