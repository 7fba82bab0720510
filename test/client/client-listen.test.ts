import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Mailbox, Option, Stream } from "effect"
import { DbRouter, RouterError } from "effect-db-router"
import * as RouterTest from "../support/router.js"

/** Waits until the primary has as many connections that listen as given. */
const listeners = (count: number) =>
  Effect.flatMap(RouterTest.PgCluster.PgCluster, ({ primary }) =>
    primary
      .query<{ pid: number }>("SELECT pid FROM pg_stat_activity WHERE application_name = 'effect-db-router listen'")
      .pipe(
        Effect.delay("10 millis"),
        Effect.repeat({ until: (rows) => rows.length === count }),
        Effect.timeout("10 seconds")
      )
  )

/** Collects what a channel brings, from when the server has taken its LISTEN. */
const collecting = (channel: string) =>
  Effect.gen(function* () {
    const client = yield* PgClient.PgClient
    const seen = yield* Mailbox.make<string>()
    const fiber = yield* client.listen(channel).pipe(
      Stream.runForEach((payload) => seen.offer(payload)),
      Effect.fork
    )
    yield* Effect.yieldNow()
    return { fiber, take: Effect.timeout(seen.take, "10 seconds") }
  })

layer(RouterTest.layer(), { excludeTestServices: true, timeout: "2 minutes" })("notifications", (it) => {
  it.effect("what is sent arrives, from the primary, whatever the fiber is told", () =>
    Effect.gen(function* () {
      const client = yield* PgClient.PgClient
      const { take } = yield* DbRouter.replica(DbRouter.bindGroup(collecting('a "channel"'), "analytics"))
      yield* listeners(1)
      const send = (payload: string) => client.notify('a "channel"', payload)
      const [, statements] = yield* RouterTest.traced(
        Effect.all([
          send("plain"),
          DbRouter.replica(send("replica")),
          DbRouter.bindGroup(send("bound"), "analytics"),
          client.withTransaction(send("committed")),
          DbRouter.bindGroup(client.withTransaction(send("outside")), "analytics"),
          Effect.ignore(client.withTransaction(Effect.zipRight(send("rolled back"), Effect.fail("no")))),
          send("")
        ])
      )
      assert.deepStrictEqual(new Set(statements.map(({ engine }) => engine)), new Set(["primary"]))
      assert.deepStrictEqual(yield* Effect.replicateEffect(take, 6), [
        "plain",
        "replica",
        "bound",
        "committed",
        "outside",
        ""
      ])
    })
  )

  it.effect("streams of one channel share a LISTEN, and the last one ends it", () =>
    Effect.gen(function* () {
      const client = yield* PgClient.PgClient
      const first = yield* collecting("shared")
      const second = yield* collecting("shared")
      const other = yield* collecting("other")
      yield* listeners(1)
      yield* Effect.sleep("50 millis")
      yield* Effect.all([client.notify("shared", "1"), client.notify("other", "2")])
      assert.deepStrictEqual(yield* Effect.all([first.take, second.take, other.take]), ["1", "1", "2"])
      yield* Fiber.interrupt(first.fiber)
      yield* client.notify("shared", "3")
      assert.strictEqual(yield* second.take, "3")
      assert.lengthOf(yield* RouterTest.ranOn('LISTEN "shared"'), 1)
      assert.deepStrictEqual(yield* RouterTest.ranOn('UNLISTEN "shared"'), [])
      yield* Fiber.interrupt(second.fiber)
      assert.deepStrictEqual(yield* RouterTest.ranOn('UNLISTEN "shared"'), ["primary"])
      yield* client.notify("other", "4")
      assert.strictEqual(yield* other.take, "4")
      yield* Fiber.interrupt(other.fiber)
      yield* listeners(0)
    })
  )

  it.scoped("a stream that takes nothing fails once it has what was kept for it, and others go on", () =>
    Effect.gen(function* () {
      const cluster = yield* RouterTest.PgCluster.PgCluster
      const most = 20
      const limited = { ...RouterTest.optionsFor(cluster, {}), maxPendingNotifications: most }
      const services = yield* Layer.build(Layer.fresh(DbRouter.layer(limited)))
      yield* Effect.provide(
        Effect.gen(function* () {
          const client = yield* PgClient.PgClient
          const other = yield* collecting("behind")
          const taken: Array<string> = []
          const gate = yield* Effect.makeLatch(false)
          const stuck = yield* client.listen("behind").pipe(
            Stream.runForEach((payload) =>
              Effect.zipRight(
                gate.await,
                Effect.sync(() => void taken.push(payload))
              )
            ),
            Effect.flip,
            Effect.fork
          )
          yield* listeners(1)
          const sent = Array.from({ length: most * 3 }, (_, i) => String(i))
          yield* client.notify("behind", "first")
          assert.strictEqual(yield* other.take, "first")
          for (const payload of sent) yield* client.notify("behind", payload)
          // The other one has them all.
          for (const payload of sent) assert.strictEqual(yield* other.take, payload)
          yield* gate.open
          const error = yield* Effect.timeout(Fiber.join(stuck), "10 seconds")
          assert.deepStrictEqual(RouterError.reasonOf(error), Option.some("ListenerBehind"))
          assert.match(String(error), /"behind" had 20 notifications/)
          // One was taken before, and held.
          assert.deepStrictEqual(taken, ["first", ...sent].slice(0, taken.length))
          assert.include([most, most + 1], taken.length)
          yield* client.notify("behind", "after")
          assert.strictEqual(yield* other.take, "after")
          // Listening again works.
          const again = yield* collecting("behind")
          yield* Effect.sleep("50 millis")
          yield* client.notify("behind", "again")
          assert.strictEqual(yield* again.take, "again")
          yield* Fiber.interrupt(other.fiber)
          yield* Fiber.interrupt(again.fiber)
        }),
        services
      )
      yield* listeners(0)
    })
  )

  it.effect("a connection that breaks fails every stream; listening again works", () =>
    Effect.gen(function* () {
      const client = yield* PgClient.PgClient
      const { primary } = yield* RouterTest.PgCluster.PgCluster
      const first = yield* collecting("one")
      const second = yield* collecting("two")
      const [row] = yield* listeners(1)
      yield* Effect.sleep("50 millis")
      yield* primary.query("SELECT pg_terminate_backend($1)", [row!.pid])
      for (const { fiber } of [first, second]) {
        const exit = yield* Effect.timeout(Fiber.await(fiber), "10 seconds")
        assert.isTrue(Exit.isFailure(exit))
        const error = yield* Effect.flip(Fiber.join(fiber))
        assert.strictEqual(error._tag, "SqlError")
        assert.strictEqual((error.cause as { code: string }).code, "57P01")
      }
      const again = yield* collecting("one")
      yield* listeners(1)
      yield* Effect.sleep("50 millis")
      yield* client.notify("one", "back")
      assert.strictEqual(yield* again.take, "back")
    })
  )
})
