/** What `@effect/sql` stores for others to read, they read, with replicas that stand still. */
import { EventJournal, EventLogServer } from "@effect/experimental"
import { SqlClient, SqlEventLogServer } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, Layer } from "effect"
import { Consistency, DbRouter } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as RouterTest from "../support/router.js"

const entry = () =>
  new EventLogServer.PersistedEntry({
    entryId: EventJournal.makeEntryId(),
    iv: new Uint8Array(12),
    encryptedEntry: new Uint8Array([1])
  })

/** A request of its own: no fiber joins it. */
const apart = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.flatMap(Effect.forkDaemon(effect), Fiber.await)

/** How many of two entries a subscriber gets that comes after both were written. */
const subscribed = (key: string) =>
  Effect.gen(function* () {
    const { replicas } = yield* PgCluster.PgCluster
    const storage = yield* EventLogServer.Storage
    yield* apart(storage.write(key, [entry()]))
    yield* RouterTest.settle
    yield* Effect.forEach(replicas, (replica) => replica.pauseReplay)
    return yield* Effect.scoped(
      Effect.gen(function* () {
        yield* apart(storage.write(key, [entry()]))
        const mailbox = yield* storage.changes(key, 0)
        yield* Effect.sleep("300 millis")
        return (yield* mailbox.clear).length
      })
    ).pipe(Effect.ensuring(Effect.orDie(Effect.forEach(replicas, (replica) => replica.resumeReplay))))
  })

let tables = 0

const storage = <E, R>(client: Layer.Layer<SqlClient.SqlClient, E, R>) =>
  Layer.suspend(() => {
    const name = `log${++tables}`
    return SqlEventLogServer.layerStorageSubtle({ remoteIdTable: `${name}_remote`, entryTablePrefix: name })
  }).pipe(Layer.provide(client))

layer(RouterTest.layer({ consistency: Consistency.causal() }), {
  excludeTestServices: true,
  timeout: "2 minutes"
})("the storage of an event log", (it) => {
  it.effect("loses no entry on the client of layerPrimary", () =>
    Effect.gen(function* () {
      const got = yield* Effect.provide(subscribed("primary"), storage(DbRouter.layerPrimary))
      assert.strictEqual(got, 2)
    })
  )

  it.effect("loses no entry where the writes of all flows count", () =>
    Effect.gen(function* () {
      const process = RouterTest.router({ consistency: Consistency.causal({ scope: "process" }) })
      assert.strictEqual(yield* Effect.provide(subscribed("process"), storage(process)), 2)
    })
  )

  it.effect("loses one on a client that goes by flows: which is why", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const routed = Layer.succeed(SqlClient.SqlClient, sql)
      assert.strictEqual(yield* Effect.provide(subscribed("flows"), storage(routed)), 1)
    })
  )
})

layer(RouterTest.layer({ consistency: Consistency.causal() }), {
  excludeTestServices: true,
  timeout: "2 minutes"
})("the client of layerPrimary", (it) => {
  const onPrimary = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.provide(effect, DbRouter.layerPrimary)

  it.effect("sends everything to the primary, in every form and whatever the fiber is told", () =>
    Effect.gen(function* () {
      const all = onPrimary(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const read = sql`SELECT 1 AS one`
          yield* Effect.all([read, read.raw, read.values, read.unprepared, read.withoutTransform])
          yield* DbRouter.replica(read)
          yield* DbRouter.bindGroup(read, "analytics")
          yield* DbRouter.bindGroup(sql.withTransaction(read), "analytics")
        })
      )
      const engines = yield* RouterTest.enginesOf(all)
      assert.deepStrictEqual([...new Set(engines)], ["primary"])
      assert.lengthOf(engines, 8)
    })
  )

  it.effect("takes part in the sessions of the program, and the program sees what it has written", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE stored (id int)`
      const store = onPrimary(Effect.flatMap(SqlClient.SqlClient, (client) => client`INSERT INTO stored VALUES (1)`))
      yield* Effect.exit(DbRouter.session(Effect.zipRight(store, Effect.fail("rolled back"))))
      assert.deepStrictEqual(yield* DbRouter.primary(sql`SELECT id FROM stored`), [])
      const { replicas } = yield* PgCluster.PgCluster
      yield* RouterTest.settle
      yield* Effect.forEach(replicas, (replica) => replica.pauseReplay)
      yield* store
      const rows = yield* sql`SELECT id FROM stored`
      yield* Effect.forEach(replicas, (replica) => replica.resumeReplay)
      assert.lengthOf(rows, 1)
    })
  )
})
