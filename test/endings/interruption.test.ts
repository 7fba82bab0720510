import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Random, Ref, Stream } from "effect"
import { DbRouter } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as engines from "../support/engine.js"

const maxConnections = 4

/** Connections that do not get old, so that statements meet every stage of connecting too. */
const router = Layer.unwrapEffect(
  Effect.map(PgCluster.PgCluster, ({ primary, replicas }) => {
    const at = (node: PgCluster.Node) => ({
      url: node.url,
      name: node.name,
      maxConnections,
      connectionTTL: 1_000
    })
    return DbRouter.layer({ groups: { default: [at(primary)], read: replicas.map(at) } })
  })
)

const cluster = PgCluster.layer({ replicas: 2 })

/** What is interrupted. Every text says so, to be found on the servers. */
const doomed = Effect.map(SqlClient.SqlClient, (sql) => {
  const rows = (count: number) => sql`SELECT g, pg_sleep(0.0001) /* doomed */ FROM generate_series(1, ${count}) g`
  const pair = (id: number, between: Effect.Effect<unknown, unknown>) =>
    Effect.gen(function* () {
      yield* sql`INSERT INTO pairs VALUES (${id}) /* doomed */`
      yield* between
      yield* sql`INSERT INTO pairs VALUES (${id}) /* doomed */`
    })
  const nap = Effect.sleep("2 millis")
  return [
    () => sql`SELECT pg_sleep(0.01) /* doomed */`,
    () => DbRouter.primary(sql`SELECT pg_sleep(0.01) /* doomed */`),
    (id: number) => sql`SELECT ${id}::int, pg_sleep(0.005) /* doomed */`.values,
    (id: number) => sql`INSERT INTO alone SELECT ${id}::int FROM pg_sleep(0.01) /* doomed */`,
    () => sql`SELECT 1/(pg_sleep(0.005) IS NULL)::int /* doomed */`,
    () => Stream.runDrain(rows(400).stream),
    () => Stream.runDrain(Stream.tap(Stream.rechunk(rows(300).stream, 64), () => Effect.yieldNow())),
    () => Stream.runDrain(Stream.mapChunksEffect(rows(300).stream, (chunk) => Effect.as(nap, chunk))),
    (id: number) => sql.withTransaction(pair(id, nap)),
    (id: number) => sql.withTransaction(pair(id, sql.withTransaction(sql`SELECT pg_sleep(0.003) /* doomed */`))),
    (id: number) => sql.withTransaction(pair(id, Effect.ignore(sql.withTransaction(sql`SELECT 1/0 /* doomed */`)))),
    (id: number) => sql.withTransaction(pair(id, Stream.runDrain(rows(200).stream))),
    (id: number) => Effect.zipRight(sql.withTransaction(Effect.fail(id)), Effect.void),
    () =>
      Effect.scoped(
        Effect.flatMap(sql.reserve, (reserved) =>
          Effect.zipRight(nap, reserved.executeRaw("SELECT pg_sleep(0.005) /* doomed */", []))
        )
      )
  ] as ReadonlyArray<(id: number) => Effect.Effect<unknown, unknown>>
})

/** Statements of others on the same pools, one after the other until all is over: what went wrong with them. */
const victim = (who: number, isOver: Effect.Effect<boolean>) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const wrongs: Array<unknown> = []
    let served = 0
    for (let i = 0; !(yield* isOver); i++) {
      const read = sql`SELECT ${i}::int AS i, pg_sleep(0.002) /* victim */`
      const ways = [
        DbRouter.replica(read),
        DbRouter.primary(read),
        sql.withTransaction(Effect.zipLeft(read, sql`INSERT INTO served VALUES (${who}, ${i}) /* victim */`))
      ]
      const exit = yield* Effect.exit(ways[i % ways.length]!)
      if (exit._tag === "Failure" || (exit.value[0] as { i: number }).i !== i) wrongs.push(exit)
      else if (i % ways.length === 2) served++
    }
    return { wrongs, served }
  })

engines.refuseWarnings()

layer(Layer.provideMerge(router, cluster), { excludeTestServices: true })("interruption", (it) => {
  it.effect("a thousand times at any stage: pools are whole and idle, servers too, and no other statement fails", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const { status } = yield* DbRouter.DbRouter
      const { nodes } = yield* PgCluster.PgCluster
      yield* sql`CREATE TABLE alone (id int)`
      yield* sql`CREATE TABLE pairs (id int)`
      yield* sql`CREATE TABLE served (who int, i int)`
      yield* DbRouter.reset
      const kinds = yield* doomed
      const isOver = yield* Ref.make(false)
      const victims = yield* Effect.forEach([1, 2, 3, 4], (who) => Effect.fork(victim(who, Ref.get(isOver))))

      let tries = 0
      let interrupted = 0
      const again = Effect.gen(function* () {
        const id = tries++
        const fiber = yield* Effect.fork(kinds[id % kinds.length]!(id))
        yield* Effect.sleep(Math.floor((yield* Random.next) ** 2 * 80))
        const exit = yield* Fiber.interrupt(fiber)
        if (Exit.isInterrupted(exit)) interrupted++
      })
      const seen = yield* engines.troubles(
        Effect.all(
          Array.from({ length: 8 }, () => Effect.repeat(again, { while: () => interrupted < 1_000 })),
          { concurrency: "unbounded" }
        )
      )
      assert.deepStrictEqual(seen, [])

      yield* Ref.set(isOver, true)
      const fates = yield* Effect.forEach(victims, Fiber.join)
      assert.deepStrictEqual(
        fates.flatMap(({ wrongs }) => wrongs),
        []
      )
      const served = fates.reduce((sum, fate) => sum + fate.served, 0)
      assert.deepStrictEqual(yield* sql`SELECT count(*)::int AS n FROM served`, [{ n: served }])

      const pools = yield* engines.eventually(
        Effect.map(status, (all) => all.map(({ inFlight, pool }) => ({ inFlight, ...pool }))),
        (all) => all.every(({ idle, inFlight, total, waiting }) => total === idle && waiting === 0 && inFlight === 0)
      )
      for (const { total } of pools) assert.isAtMost(total, maxConnections)
      for (const node of nodes) {
        const working = (yield* engines.activity(node)).filter(({ state }) => state !== "idle")
        assert.deepStrictEqual(working, [])
      }
      assert.deepStrictEqual(yield* sql`SELECT id FROM pairs GROUP BY id HAVING count(*) <> 2`, [])
      // Each server still gives every connection that it may.
      const all = Array.from({ length: maxConnections * 3 }, (_, i) => sql`SELECT ${i}::int AS i, pg_sleep(0.02)`)
      assert.strictEqual((yield* Effect.all(all, { concurrency: "unbounded" })).length, maxConnections * 3)
    }).pipe(Effect.withRandom(Random.make("interruption")))
  )
})
