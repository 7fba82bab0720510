import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, Runtime, Stream } from "effect"
import { Consistency, DbRouter, type RouterConfig, RoutingContext } from "effect-db-router"
import * as Causal from "../support/causal.js"
import * as RouterTest from "../support/router.js"

const { insert, newId, sees, standingStill } = Causal

/** The group that a read goes to. */
const readsFrom = Effect.flatMap(DbRouter.DbRouter, (router) =>
  Effect.map(router.explain("SELECT id FROM note"), ({ group }) => group)
)

const withPolicy = (consistency: RouterConfig.Options["consistency"]) => RouterTest.router({ consistency })

layer(Causal.layer(), { excludeTestServices: true, timeout: "2 minutes" })("read your writes", (it) => {
  /** A test whose replicas stand still. */
  const still = <E, R extends RouterTest.Services>(name: string, effect: Effect.Effect<unknown, E, R>) =>
    it.effect(name, () => standingStill(effect))

  still(
    "sticky: a write that is committed by itself, until reset",
    Effect.gen(function* () {
      const id = yield* newId
      assert.isFalse(yield* sees(id))
      assert.strictEqual(yield* readsFrom, "read")
      yield* insert(id)
      assert.strictEqual(yield* readsFrom, "default")
      assert.isTrue(yield* sees(id))
      assert.isTrue(yield* sees(id))
      yield* DbRouter.reset
      assert.isFalse(yield* sees(id))
    })
  )

  still(
    "sticky: a write in a transaction, until that transaction ends",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const id = yield* newId
      const inside = yield* sql.withTransaction(
        Effect.gen(function* () {
          yield* insert(id)
          const nested = yield* sql.withTransaction(sees(id))
          return [nested, yield* sees(id), yield* DbRouter.replica(sees(id))]
        })
      )
      assert.deepStrictEqual(inside, [true, true, true])
      assert.strictEqual(yield* readsFrom, "read")
      assert.isFalse(yield* sees(id))
      assert.isTrue(yield* DbRouter.primary(sees(id)))
      const other = yield* newId
      yield* Effect.exit(sql.withTransaction(Effect.zipRight(insert(other), Effect.fail("no"))))
      assert.strictEqual(yield* readsFrom, "read")
      assert.isFalse(yield* DbRouter.primary(sees(other)))
    })
  )

  still(
    "sticky: another transaction's end does not take an earlier write away",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const id = yield* newId
      yield* insert(id)
      yield* sql.withTransaction(Effect.flatMap(newId, insert))
      assert.isTrue(yield* sees(id))
      yield* Effect.exit(sql.withTransaction(Effect.zipRight(Effect.flatMap(newId, insert), Effect.fail("no"))))
      assert.isTrue(yield* sees(id))
    })
  )

  still(
    "sticky({ resetOnCommit: false }): a write in a transaction sticks after the commit, not after a rollback",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const id = yield* newId
      yield* Effect.exit(sql.withTransaction(Effect.zipRight(Effect.flatMap(newId, insert), Effect.fail("no"))))
      assert.strictEqual(yield* readsFrom, "read")
      yield* sql.withTransaction(sees(id))
      assert.strictEqual(yield* readsFrom, "read")
      yield* sql.withTransaction(sql.withTransaction(insert(id)))
      assert.strictEqual(yield* readsFrom, "default")
      assert.isTrue(yield* sees(id))
      yield* DbRouter.reset
      yield* insert(yield* newId)
      assert.strictEqual(yield* readsFrom, "default")
    }).pipe(Effect.provide(withPolicy(Consistency.sticky({ resetOnCommit: false }))))
  )

  still(
    "eventual: a write does not stick, setStickyPrimary does",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const id = yield* newId
      yield* insert(id)
      assert.isFalse(yield* sees(id))
      yield* sql.withTransaction(Effect.flatMap(newId, insert))
      assert.strictEqual(yield* readsFrom, "read")
      assert.isTrue(yield* DbRouter.primary(sees(id)))
      yield* RoutingContext.setStickyPrimary
      assert.isTrue(yield* sees(id))
      yield* DbRouter.reset
      assert.isTrue(yield* Effect.locally(sees(id), RoutingContext.stickToPrimary, true))
      assert.isFalse(yield* sees(id))
    }).pipe(Effect.provide(withPolicy(Consistency.eventual())))
  )

  still(
    "a policy of one's own is asked and told",
    Effect.suspend(() => {
      const told: Array<string> = []
      const tell = (what: string) => Effect.sync(() => void told.push(what))
      const policy: Consistency.Consistency = {
        name: "mine",
        afterWrite: tell("write"),
        afterCommit: tell("commit"),
        readsFromPrimary: () => told.length > 0
      }
      return Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const id = yield* newId
        assert.isFalse(yield* sees(id))
        yield* sql.withTransaction(sees(id))
        yield* Effect.exit(sql.withTransaction(Effect.zipRight(insert(id), Effect.fail("no"))))
        assert.deepStrictEqual(told, [])
        yield* sql.withTransaction(sql.withTransaction(insert(id)))
        assert.deepStrictEqual(told, ["commit"])
        assert.isTrue(yield* sees(id))
        yield* insert(yield* newId)
        assert.deepStrictEqual(told, ["commit", "write"])
        const router = yield* DbRouter.DbRouter
        assert.strictEqual((yield* router.explain("SELECT id FROM note")).reason, "mine after a write")
      }).pipe(Effect.provide(withPolicy(policy)))
    })
  )

  still(
    "whatever way a write is run, it sticks",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const write = Effect.map(newId, (id) => sql`INSERT INTO note (id) VALUES (${id}) RETURNING id`)
      const ways = {
        effect: Effect.flatten(write),
        raw: Effect.flatMap(write, (statement) => statement.raw),
        values: Effect.flatMap(write, (statement) => statement.values),
        withoutTransform: Effect.flatMap(write, (statement) => statement.withoutTransform),
        unprepared: Effect.flatMap(write, (statement) => statement.unprepared),
        stream: Effect.flatMap(write, (statement) => Stream.runDrain(statement.stream)),
        unsafe: Effect.flatMap(newId, (id) => sql.unsafe("INSERT INTO note (id) VALUES ($1)", [id])),
        reserve: Effect.scoped(
          Effect.flatMap(sql.reserve, (connection) =>
            Effect.flatMap(newId, (id) => connection.execute("INSERT INTO note (id) VALUES ($1)", [id], undefined))
          )
        ),
        "a data-modifying CTE": Effect.flatMap(
          newId,
          (id) => sql`WITH new AS (INSERT INTO note (id) VALUES (${id}) RETURNING id) SELECT id FROM new`
        ),
        "a locking read": sql`SELECT id FROM note LIMIT 1 FOR UPDATE`,
        "one that fails": Effect.exit(sql`INSERT INTO note (id) SELECT 1 FROM generate_series(1, 2)`),
        "one in a bind group": DbRouter.bindGroup(Effect.flatten(write), "archive"),
        "one inside replica": DbRouter.replica(Effect.flatten(write)),
        "one inside primary": DbRouter.primary(Effect.flatten(write))
      }
      for (const [way, effect] of Object.entries<Effect.Effect<unknown, unknown>>(ways)) {
        yield* DbRouter.reset
        yield* effect
        assert.strictEqual(yield* readsFrom, "default", way)
      }
    })
  )

  still(
    "inside replica the reads go to replicas even after a write, which goes to the primary and sticks afterwards",
    Effect.gen(function* () {
      const id = yield* newId
      const inside = yield* DbRouter.replica(
        Effect.gen(function* () {
          const before = yield* sees(id)
          yield* insert(id)
          return [before, yield* sees(id), yield* DbRouter.primary(sees(id)), yield* sees(id)]
        })
      )
      assert.deepStrictEqual(inside, [false, false, true, false])
      assert.isTrue(yield* sees(id))
      assert.isFalse(yield* DbRouter.replica(sees(id)))
      assert.isTrue(yield* sees(id))
    })
  )

  still(
    "children that are joined: fork, Effect.all, race",
    Effect.gen(function* () {
      const joined = [
        (id: number) => Effect.flatMap(Effect.fork(insert(id)), Fiber.join),
        (id: number) => Effect.flatMap(Effect.forkDaemon(insert(id)), Fiber.join),
        (id: number) => Effect.all([insert(id), readsFrom], { concurrency: "unbounded" }),
        (id: number) => Effect.all([readsFrom, insert(id)], { concurrency: 2, mode: "either" }),
        (id: number) => Effect.all([readsFrom, insert(id)], { concurrency: 1, batching: true }),
        (id: number) => Effect.race(insert(id), Effect.never),
        (id: number) => Effect.timeout(insert(id), "10 seconds")
      ]
      for (const write of joined) {
        const id = yield* newId
        yield* DbRouter.reset
        assert.strictEqual(yield* readsFrom, "read")
        yield* write(id)
        assert.isTrue(yield* sees(id))
      }
    })
  )

  still(
    "limit outside a session: children that fail, are awaited, or run through a runtime",
    Effect.gen(function* () {
      const lost: ReadonlyArray<(id: number) => Effect.Effect<unknown, unknown, SqlClient.SqlClient>> = [
        (id) => Effect.flatMap(Effect.fork(Effect.zipRight(insert(id), Effect.fail("no"))), Fiber.join),
        (id) => Effect.flatMap(Effect.fork(insert(id)), Fiber.await),
        (id) => Effect.timeout(Effect.zipRight(insert(id), Effect.never), "300 millis"),
        (id) =>
          Effect.flatMap(Effect.runtime<SqlClient.SqlClient>(), (runtime) =>
            Effect.promise(() => Runtime.runPromise(runtime)(insert(id)))
          )
      ]
      for (const write of lost) {
        const id = yield* newId
        yield* Effect.exit(write(id))
        assert.isFalse(yield* sees(id))
        assert.isTrue(yield* DbRouter.primary(sees(id)))
        const other = yield* newId
        assert.isTrue(yield* DbRouter.session(Effect.zipRight(Effect.exit(write(other)), sees(other))))
      }
    })
  )

  still(
    "nothing of one request is left for another: one after the other, and 200 at once",
    Effect.gen(function* () {
      const runtime = yield* Effect.runtime<SqlClient.SqlClient | DbRouter.DbRouter>()
      const request = (writes: boolean) =>
        Effect.gen(function* () {
          const id = yield* newId
          const before = yield* readsFrom
          if (writes) yield* insert(id)
          return before === "read" && (yield* sees(id)) === writes
        })
      for (let i = 0; i < 10; i++) {
        assert.isTrue(yield* Effect.promise(() => Runtime.runPromise(runtime)(request(i % 2 === 0))))
      }
      const all = Array.from({ length: 200 }, (_, i) => Runtime.runPromise(runtime)(request(i % 2 === 0)))
      assert.notInclude(yield* Effect.promise(() => Promise.all(all)), false)
      assert.strictEqual(yield* readsFrom, "read")
    })
  )
})
