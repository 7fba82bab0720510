import { SqlClient, type SqlError } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, Fiber, FiberRef, Layer, Option } from "effect"
import { Consistency, DbRouter, RoutingContext } from "effect-db-router"
import * as RouterTest from "../support/router.js"

// Advanced Alchemy's `routing` module, version 1.11: what its documentation and its tests promise, and what corresponds here.

const { forcePrimary, bindGroup, setStickyPrimary, shouldUsePrimary, stickToPrimary } = RoutingContext

const replicas = ["replica1", "replica2"]

const write = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO song DEFAULT VALUES`)

/** The engine that a statement would go to. */
const engineOf = (sql: string) =>
  Effect.flatMap(DbRouter.DbRouter, (router) => Effect.map(router.explain(sql), ({ engine }) => engine))

const read = engineOf("SELECT title FROM song")

const assertReplica = Effect.map(read, (engine) => assert.include(replicas, engine))
const assertPrimary = Effect.map(read, (engine) => assert.strictEqual(engine, "primary"))

const raise = Effect.fail("no")

const Songs = Layer.effectDiscard(
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => sql`CREATE TABLE IF NOT EXISTS song (id int GENERATED ALWAYS AS IDENTITY, title text)`
  )
)

const withOptions = (options: RouterTest.Options) => Effect.provide(RouterTest.router(options))

layer(Layer.provideMerge(Songs, RouterTest.layer()), { excludeTestServices: true, timeout: "2 minutes" })(
  "Advanced Alchemy's",
  (it) => {
    const row = <E>(there: string, here: string, effect: Effect.Effect<unknown, E, RouterTest.Services>) =>
      it.effect(`${there}: ${here}`, () => effect)

    row(
      "stick_to_primary_var, force_primary_var, bind_group_var",
      "the FiberRefs stickToPrimary, forcePrimary, bindGroup, with the same defaults",
      Effect.gen(function* () {
        assert.isFalse(yield* FiberRef.get(stickToPrimary))
        assert.isFalse(yield* FiberRef.get(forcePrimary))
        assert.deepStrictEqual(yield* FiberRef.get(bindGroup), Option.none())
        yield* assertReplica
        yield* Effect.locally(assertPrimary, stickToPrimary, true)
        yield* Effect.locally(assertPrimary, forcePrimary, true)
        assert.strictEqual(yield* Effect.locally(read, bindGroup, Option.some("analytics")), "analytics1")
      })
    )

    row(
      "set_sticky_primary",
      "setStickyPrimary",
      Effect.gen(function* () {
        yield* setStickyPrimary
        assert.isTrue(yield* shouldUsePrimary)
        yield* assertPrimary
      })
    )

    row(
      "should_use_primary",
      "shouldUsePrimary: forced, sticky, both, or neither",
      Effect.gen(function* () {
        assert.isFalse(yield* shouldUsePrimary)
        assert.isTrue(yield* Effect.locally(shouldUsePrimary, forcePrimary, true))
        assert.isTrue(yield* Effect.locally(shouldUsePrimary, stickToPrimary, true))
        yield* setStickyPrimary
        assert.isTrue(yield* shouldUsePrimary)
        assert.isTrue(yield* Effect.locally(shouldUsePrimary, forcePrimary, true))
      })
    )

    row(
      "reset_routing_context",
      "reset: not sticky, not forced, not bound",
      Effect.gen(function* () {
        yield* setStickyPrimary
        yield* FiberRef.set(stickToPrimary, true)
        yield* FiberRef.set(forcePrimary, true)
        yield* FiberRef.set(bindGroup, Option.some("archive"))
        assert.strictEqual(yield* read, "archive1")
        yield* RoutingContext.reset
        assert.isFalse(yield* shouldUsePrimary)
        yield* assertReplica
      })
    )

    row(
      "primary_context",
      "primary: nested, and until its end, be that an exception",
      Effect.gen(function* () {
        yield* DbRouter.primary(Effect.all([assertPrimary, DbRouter.primary(assertPrimary), assertPrimary]))
        yield* assertReplica
        yield* Effect.flip(DbRouter.primary(Effect.zipRight(assertPrimary, raise)))
        yield* assertReplica
      })
    )

    row(
      "replica_context",
      "replica: neither sticky nor forced inside, both again after it, be its end an exception",
      Effect.gen(function* () {
        yield* write
        const inside = Effect.zipRight(
          assertReplica,
          Effect.map(shouldUsePrimary, (should) => assert.isFalse(should))
        )
        yield* assertPrimary
        yield* DbRouter.replica(inside)
        yield* assertPrimary
        yield* Effect.locally(DbRouter.replica(inside), forcePrimary, true)
        yield* DbRouter.replica(Effect.all([inside, DbRouter.replica(inside), inside]))
        yield* Effect.flip(DbRouter.replica(Effect.zipRight(inside, raise)))
        yield* assertPrimary
      })
    )

    row(
      "primary_context and replica_context, nested",
      "the innermost wins",
      Effect.gen(function* () {
        yield* setStickyPrimary
        yield* DbRouter.replica(Effect.all([assertReplica, DbRouter.primary(assertPrimary), assertReplica]))
        yield* DbRouter.primary(Effect.all([assertPrimary, DbRouter.replica(assertReplica), assertPrimary]))
        yield* assertPrimary
      })
    )

    row(
      "use_bind_group",
      "bindGroup, before stickiness and in place of the classifier",
      Effect.gen(function* () {
        yield* setStickyPrimary
        assert.strictEqual(yield* DbRouter.bindGroup(read, "analytics"), "analytics1")
        assert.strictEqual(yield* DbRouter.bindGroup(engineOf("DELETE FROM song"), "archive"), "archive1")
        assert.strictEqual(yield* DbRouter.bindGroup(DbRouter.bindGroup(read, "archive"), "analytics"), "archive1")
        yield* Effect.flip(DbRouter.bindGroup(raise, "analytics"))
        yield* assertPrimary
      })
    )

    row(
      "use_bind_group inside primary_context, or around it: the group",
      "the innermost, like all combinators",
      Effect.gen(function* () {
        assert.strictEqual(yield* DbRouter.primary(DbRouter.bindGroup(read, "analytics")), "analytics1")
        assert.strictEqual(yield* DbRouter.bindGroup(DbRouter.primary(read), "analytics"), "primary")
      })
    )

    row(
      "bind_group of one statement's execution options",
      "bindGroup around that statement",
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const engines = yield* RouterTest.enginesOf(
          Effect.all([DbRouter.bindGroup(sql`SELECT title FROM song`, "analytics"), sql`SELECT title FROM song`])
        )
        assert.strictEqual(engines[0], "analytics1")
        assert.include(replicas, engines[1])
      })
    )

    row(
      "use_bind_group of an unknown name: the default engine",
      "a typed error that lists the groups",
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const error: SqlError.SqlError = yield* Effect.flip(DbRouter.bindGroup(sql`SELECT 1`, "nowhere"))
        assert.include(error.cause, { _tag: "RouterError", reason: "UnknownGroup" })
        assert.include(String(error.cause), "analytics")
      })
    )

    row(
      "context variables are isolated per context, thread and task",
      "per fiber",
      Effect.gen(function* () {
        const written = yield* Deferred.make<void>()
        const writer = yield* Effect.fork(
          Effect.all([write, Deferred.succeed(written, undefined), assertPrimary, Effect.yieldNow(), assertPrimary])
        )
        const reader = yield* Effect.fork(Effect.zipRight(Deferred.await(written), assertReplica))
        yield* Fiber.join(reader)
        yield* Effect.flatten(Fiber.await(writer))
        yield* assertReplica
      })
    )

    row(
      "get_bind: SELECT",
      "a replica, in turns",
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const engines = yield* RouterTest.enginesOf(Effect.replicateEffect(sql`SELECT title FROM song`, 4))
        assert.deepStrictEqual([engines[0], engines[1]].sort(), replicas)
        assert.deepStrictEqual([engines[2], engines[3]], [engines[0], engines[1]])
      })
    )

    row(
      "get_bind: INSERT, UPDATE, DELETE and what is flushed",
      "the primary, and anything else that writes",
      Effect.gen(function* () {
        for (const statement of [
          "INSERT INTO song DEFAULT VALUES",
          "UPDATE song SET title = ''",
          "DELETE FROM song",
          "WITH gone AS (DELETE FROM song RETURNING id) SELECT id FROM gone",
          "CREATE TABLE other (id int)",
          "SELECT nextval('song_id_seq')"
        ]) {
          assert.strictEqual(yield* engineOf(statement), "primary", statement)
        }
      })
    )

    row(
      "get_bind: FOR UPDATE, also NOWAIT and SKIP LOCKED",
      "the primary; it sticks, too",
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        for (const lock of ["FOR UPDATE", "FOR UPDATE NOWAIT", "FOR UPDATE SKIP LOCKED", "FOR SHARE"]) {
          assert.strictEqual(yield* engineOf(`SELECT title FROM song ${lock}`), "primary", lock)
        }
        yield* assertReplica
        yield* sql`SELECT title FROM song FOR UPDATE`
        yield* assertPrimary
      })
    )

    row(
      "sticky_after_write",
      "Consistency.sticky, the default",
      Effect.gen(function* () {
        yield* assertReplica
        yield* write
        yield* assertPrimary
      })
    )

    row(
      "sticky_after_write=False",
      "Consistency.eventual",
      Effect.gen(function* () {
        yield* write
        yield* assertReplica
      }).pipe(withOptions({ consistency: Consistency.eventual() }))
    )

    row(
      "stickiness inside the transaction of a session",
      "reads stay in the transaction",
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* sql.withTransaction(Effect.all([assertPrimary, write, assertPrimary]))
        yield* DbRouter.session(Effect.all([assertReplica, write, assertPrimary]))
      })
    )

    row(
      "commit resets the stickiness",
      "so does the end of a transaction, of a session, and DbRouter.commit",
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* sql.withTransaction(write)
        yield* assertReplica
        yield* DbRouter.session(Effect.all([write, assertPrimary, DbRouter.commit, assertReplica]))
        yield* assertReplica
      })
    )

    row(
      "rollback resets the stickiness",
      "the same",
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* Effect.flip(sql.withTransaction(Effect.zipRight(write, raise)))
        yield* assertReplica
        yield* DbRouter.session(Effect.all([write, assertPrimary, DbRouter.rollback, assertReplica]))
        yield* Effect.flip(DbRouter.session(Effect.zipRight(write, raise)))
        yield* assertReplica
      })
    )

    row(
      "reset_stickiness_on_commit=False",
      "Consistency.sticky({ resetOnCommit: false }), which a rollback resets as well",
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* Effect.flip(sql.withTransaction(Effect.zipRight(write, raise)))
        yield* assertReplica
        yield* sql.withTransaction(write)
        yield* assertPrimary
        yield* DbRouter.reset
        yield* DbRouter.session(Effect.all([write, DbRouter.commit, assertPrimary]))
        yield* assertPrimary
      }).pipe(withOptions({ consistency: Consistency.sticky({ resetOnCommit: false }) }))
    )

    row(
      "commit inside primary_context or use_bind_group ends these, too",
      "they hold until their end",
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* DbRouter.primary(Effect.zipRight(sql.withTransaction(write), assertPrimary))
        const bound = DbRouter.bindGroup(Effect.zipRight(sql.withTransaction(sql`SELECT 1`), read), "analytics")
        assert.strictEqual(yield* bound, "analytics1")
      })
    )

    row(
      "a write inside replica_context sticks there, and is forgotten at its end",
      "the other way round",
      Effect.gen(function* () {
        yield* DbRouter.replica(Effect.zipRight(write, assertReplica))
        yield* assertPrimary
      })
    )

    row(
      "enabled=False",
      "enabled: false, everything on the primary",
      Effect.gen(function* () {
        yield* assertPrimary
        yield* DbRouter.replica(assertPrimary)
      }).pipe(withOptions({ enabled: false }))
    )

    row(
      "no replicas",
      "no read group, everything on the primary",
      Effect.gen(function* () {
        const { primary } = yield* RouterTest.PgCluster.PgCluster
        const only = DbRouter.layer({ groups: { default: [{ url: primary.url, name: "primary" }] } })
        yield* Effect.provide(Effect.all([assertPrimary, DbRouter.replica(assertPrimary)]), only)
      })
    )

    row(
      "the context is reset for every request",
      "HttpSession.middleware does it, with RoutingContext.fresh",
      Effect.gen(function* () {
        yield* write
        yield* RoutingContext.fresh(Effect.all([assertReplica, write, assertPrimary]))
        yield* RoutingContext.fresh(assertReplica)
      })
    )
  }
)
