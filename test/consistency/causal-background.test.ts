import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Scope } from "effect"
import { Consistency, DbRouter } from "effect-db-router"
import * as Internal from "../../src/internal/client/service.js"
import * as Causal from "../support/causal.js"
import * as RouterTest from "../support/router.js"

const { insert, look, newId } = Causal

/** How often the router in the context has asked for positions. */
const sent = Effect.map(Internal.DbRouter, ({ runner }) => ({ ...runner.router.causal!.inquiries.sent }))

/** Runs an effect over a router of its own, whose replicas have a connection open. */
const over = <A, E, R>(consistency: Consistency.Consistency, effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    yield* RouterTest.settle
    const sql = yield* SqlClient.SqlClient
    yield* Effect.replicateEffect(sql`SELECT id FROM note WHERE id = -1`, 4)
    yield* DbRouter.reset
    return yield* effect
  }).pipe(Effect.provide(RouterTest.router({ consistency })))

layer(Causal.layer(), { excludeTestServices: true, timeout: "2 minutes" })("replicas after a write", (it) => {
  const learned = (write: (id: number) => Effect.Effect<unknown, unknown, RouterTest.Services>, inAnother: boolean) =>
    Effect.gen(function* () {
      let asked = 0
      for (let i = 0; i < 10; i++) {
        const id = yield* newId
        const writing = write(id)
        yield* inAnother ? Effect.flatMap(Effect.forkDaemon(writing), Fiber.join) : writing
        yield* Effect.sleep("150 millis")
        const before = yield* sent
        const [found, engine] = yield* look(id)
        assert.isTrue(found)
        if (engine !== "primary" && (yield* sent).read === before.read) asked++
        yield* DbRouter.reset
      }
      return asked
    })

  for (const scope of ["flow", "process"] as const) {
    it.effect(`are known to have it when it is read a while later, so that no read asks; scope: "${scope}"`, () =>
      over(
        Consistency.causal({ scope }),
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          for (const write of [
            insert,
            (id: number) => sql.withTransaction(insert(id)),
            (id: number) => DbRouter.session(insert(id))
          ]) {
            // A busy machine may take its time.
            assert.isAtLeast(yield* learned(write, scope === "process"), 7)
          }
          assert.isAbove((yield* sent).write, 0)
        })
      )
    )
  }

  it.effect("are not asked where nothing was written, nor with wait: 0, nor where no connection is open", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const pause = Effect.sleep("60 millis")
      const reading = Effect.zipRight(
        Effect.forEach([1, 2, 3], () => Effect.zipRight(sql`SELECT id FROM note`, pause)),
        sql.withTransaction(sql`SELECT count(*) FROM note`)
      )
      const forWrites = Effect.map(sent, ({ write }) => write)
      const afterReads = Effect.zipRight(Effect.zipRight(reading, pause), forWrites)
      assert.strictEqual(yield* over(Consistency.causal(), afterReads), 0)
      const afterWrite = Effect.zipRight(Effect.zipRight(Effect.flatMap(newId, insert), pause), forWrites)
      assert.strictEqual(yield* over(Consistency.causal({ wait: 0 }), afterWrite), 0)
      assert.isAbove(yield* over(Consistency.causal(), afterWrite), 0)
      const unopened = RouterTest.router({ consistency: Consistency.causal() })
      assert.strictEqual(yield* Effect.provide(afterWrite, unopened), 0)
    })
  )

  it.effect("are left alone by a router that was closed right after a write", () =>
    Effect.gen(function* () {
      const { nodes } = yield* RouterTest.PgCluster.PgCluster
      const applicationName = "closed at once"
      const scope = yield* Scope.make()
      const services = yield* Scope.extend(
        Layer.build(RouterTest.router({ consistency: Consistency.causal(), engine: { applicationName } })),
        scope
      )
      yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* Effect.replicateEffect(sql`SELECT id FROM note WHERE id = -1`, 4)
        yield* Effect.flatMap(newId, insert)
      }).pipe(Effect.provide(services))
      const count = sent.pipe(Effect.provide(services))
      yield* Scope.close(scope, Exit.void)
      const before = yield* count
      yield* Effect.sleep("100 millis")
      assert.deepStrictEqual(yield* count, before)
      for (const node of nodes) {
        const left = "SELECT FROM pg_stat_activity WHERE application_name LIKE $1 || '%'"
        assert.lengthOf(yield* node.query(left, [applicationName]), 0)
      }
    })
  )
})
