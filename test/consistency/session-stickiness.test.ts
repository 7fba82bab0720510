import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, FiberRef, Runtime, Stream } from "effect"
import { Consistency, DbRouter, RoutingContext } from "effect-db-router"
import * as RouterTest from "../support/router.js"
import * as Sessions from "../support/session.js"

const { insert } = Sessions

type Needs = DbRouter.Services | RouterTest.PgCluster.PgCluster

const sticky = (resetOnCommit?: boolean) =>
  Effect.provide(Sessions.router({ consistency: Consistency.sticky({ resetOnCommit }) }))

/** Where a read goes. */
const readsFrom = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.map(RouterTest.traced(sql`SELECT id FROM note`), ([, [statement]]) => statement?.group)
)

const failing = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.zipRight(effect, Effect.fail("no"))

/** Children whose FiberRefs are lost to their parents. */
const children: Record<string, <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<unknown, unknown, R>> = {
  "that fails": (effect) => Effect.flatMap(Effect.fork(failing(effect)), Fiber.await),
  "that is one of several, of which another fails": (effect) =>
    Effect.all([effect, Effect.delay(Effect.fail("no"), "50 millis")], { concurrency: "unbounded" }),
  "that times out": (effect) => Effect.timeout(Effect.zipRight(effect, Effect.never), "50 millis"),
  "that loses a race": (effect) => Effect.race(Effect.zipRight(effect, Effect.never), Effect.sleep("50 millis")),
  "that is awaited, not joined": (effect) => Effect.flatMap(Effect.fork(effect), Fiber.await),
  "of a stream": (effect) =>
    Stream.runDrain(Stream.mapEffect(Stream.make(1, 2), (n) => (n === 1 ? effect : Effect.void), { concurrency: 2 })),
  "in a runtime of its own": (effect) =>
    Effect.flatMap(Effect.runtime<Effect.Effect.Context<typeof effect>>(), (runtime) =>
      Effect.promise(() => Runtime.runPromiseExit(runtime)(effect))
    )
}

layer(Sessions.layerWith(), { excludeTestServices: true, timeout: "2 minutes" })("the flow of a session", (it) => {
  for (const [name, child] of Object.entries(children)) {
    it.effect(`knows what a child has written ${name}`, () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        const writes: ReadonlyArray<Effect.Effect<unknown, unknown, Needs>> = [
          insert(1),
          RoutingContext.setStickyPrimary,
          DbRouter.detached(insert(2)),
          DbRouter.detached(RoutingContext.setStickyPrimary)
        ]
        for (const write of writes) {
          const [before, after] = yield* DbRouter.session(
            Effect.all([readsFrom, Effect.zipRight(Effect.ignore(child(write)), readsFrom), DbRouter.rollback])
          )
          assert.deepStrictEqual([before, after], ["read", "default"])
        }
        const own = DbRouter.session(
          Effect.zipRight(
            Effect.ignore(child(insert(3))),
            Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT id FROM note WHERE id = 3`)
          )
        )
        assert.lengthOf(yield* own, 1)
      }).pipe(sticky())
    )
  }

  it.effect("ends with it, unless the writes are to stick", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      yield* DbRouter.session(Effect.zipRight(insert(1), RoutingContext.setStickyPrimary))
      assert.strictEqual(yield* readsFrom, "read")
      yield* DbRouter.newSession(insert(2))
      assert.strictEqual(yield* readsFrom, "read")
      yield* Effect.ignore(DbRouter.session(failing(insert(3))))
      assert.strictEqual(yield* readsFrom, "read")
      yield* Effect.scoped(Effect.zipRight(Sessions.inScope, insert(4)))
      assert.strictEqual(yield* readsFrom, "read")
    }).pipe(sticky())
  )

  it.effect(
    "with resetOnCommit: false sticks after a commit, in the session and after it, and not after a rollback",
    () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        const fresh = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
          Effect.zipRight(DbRouter.reset, Effect.zipRight(Effect.ignore(effect), readsFrom))
        assert.strictEqual(yield* fresh(DbRouter.session(insert(1))), "default")
        assert.strictEqual(yield* fresh(DbRouter.newSession(insert(2))), "default")
        assert.strictEqual(yield* fresh(Effect.scoped(Effect.zipRight(Sessions.inScope, insert(3)))), "default")
        assert.strictEqual(
          yield* fresh(DbRouter.session(Effect.all([insert(4), DbRouter.commit, Effect.fail("no")]))),
          "default"
        )
        assert.strictEqual(yield* fresh(DbRouter.session(failing(insert(5)))), "read")
        assert.strictEqual(yield* fresh(DbRouter.session(Effect.all([insert(6), DbRouter.rollback]))), "read")
        assert.strictEqual(yield* fresh(DbRouter.session(readsFrom)), "read")
        const inside = Effect.all([insert(7), DbRouter.commit, readsFrom, DbRouter.reset, readsFrom])
        const [, , committed, , reset] = yield* DbRouter.session(inside)
        assert.deepStrictEqual([committed, reset], ["default", "read"])
        const nested = Effect.all([DbRouter.reset, DbRouter.newSession(insert(8)), readsFrom])
        assert.strictEqual((yield* DbRouter.session(nested))[2], "default")
      }).pipe(sticky(false))
  )

  it.effect("with the default, reads go to replicas again after an early commit or rollback", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      const ends = [DbRouter.commit, DbRouter.rollback, DbRouter.close, DbRouter.commit("default")]
      for (const [i, end] of ends.entries()) {
        const seen = yield* DbRouter.session(Effect.all([readsFrom, insert(i), readsFrom, end, readsFrom]))
        assert.deepStrictEqual([seen[0], seen[2], seen[4]], ["read", "default", "read"])
      }
    }).pipe(sticky())
  )

  it.effect("begins as the flow around it is, and leaves that as it was", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      yield* insert(1)
      assert.strictEqual(yield* DbRouter.session(readsFrom), "default")
      assert.strictEqual(yield* DbRouter.session(Effect.zipRight(DbRouter.reset, readsFrom)), "read")
      assert.strictEqual(yield* readsFrom, "default")
      yield* DbRouter.reset
      yield* FiberRef.set(RoutingContext.stickToPrimary, true)
      assert.strictEqual(yield* DbRouter.session(readsFrom), "default")
      yield* DbRouter.reset
    }).pipe(sticky())
  )

  it.effect("detached writes count for who waits for them, and not the other way round", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      const seen = yield* DbRouter.session(
        Effect.gen(function* () {
          yield* DbRouter.detached(insert(1))
          const inside = yield* readsFrom
          yield* DbRouter.detached(DbRouter.reset)
          return [inside, yield* readsFrom]
        })
      )
      assert.deepStrictEqual(seen, ["default", "default"])
      assert.strictEqual(yield* readsFrom, "read")
      yield* DbRouter.detached(insert(2))
      assert.strictEqual(yield* readsFrom, "default")
    }).pipe(sticky())
  )
})
