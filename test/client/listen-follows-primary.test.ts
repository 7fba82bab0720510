/** A stream of `listen` goes to the server that takes the writes, and says so when it has to begin anew. */
import { PgClient } from "@effect/sql-pg"
import { assert, describe, it, layer } from "@effect/vitest"
import { Context, Duration, Effect, Exit, Fiber, Layer, Mailbox, Option, Redacted, Scope, Stream } from "effect"
import { DbRouter, type RouterConfig, RouterError } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import { partsOf } from "../support/engine.js"
import * as Proxy from "../support/proxy.js"

const health = { interval: "200 millis", timeout: "500 millis" } as const

interface Collected {
  readonly fiber: Fiber.RuntimeFiber<void, unknown>
  readonly take: Effect.Effect<string, unknown>
}

/** Collects what a channel brings. */
const collecting = (channel: string): Effect.Effect<Collected, never, PgClient.PgClient> =>
  Effect.gen(function* () {
    const client = yield* PgClient.PgClient
    const seen = yield* Mailbox.make<string>()
    const fiber = yield* Effect.forkDaemon(Stream.runForEach(client.listen(channel), (payload) => seen.offer(payload)))
    return { fiber, take: Effect.timeout(seen.take, "10 seconds") }
  })

const notify = (channel: string, payload: string) =>
  Effect.flatMap(PgClient.PgClient, (client) => client.notify(channel, payload))

/** How many connections listen on a server. */
const listening = (node: PgCluster.Node) =>
  Effect.map(
    node.query("SELECT FROM pg_stat_activity WHERE application_name = 'effect-db-router listen'"),
    (rows) => rows.length
  )

const until = <E, R>(check: Effect.Effect<boolean, E, R>) =>
  Effect.repeat(Effect.delay(check, "20 millis"), { until: (done) => done }).pipe(Effect.timeout("15 seconds"))

const listens = (node: PgCluster.Node, count = 1) => until(Effect.map(listening(node), (found) => found === count))

/** Collects, and waits until the channel brings something. */
const heard = (channel: string) =>
  Effect.gen(function* () {
    const collected = yield* collecting(channel)
    const first = yield* Effect.fork(collected.take)
    yield* until(
      Effect.zipRight(notify(channel, "first"), Effect.map(Effect.delay(first.poll, "50 millis"), Option.isSome))
    )
    return collected
  })

/** Why a stream has failed. */
const failure = ({ fiber }: Collected) => Effect.timeout(Effect.flip(Fiber.join(fiber)), "15 seconds")

const isMissing = (error: unknown) => {
  assert.deepStrictEqual(RouterError.reasonOf(error), Option.some("ConnectionLost"), String(error))
  assert.match(String(error), /notifications may have been missed/)
}

const router = (cluster: PgCluster.Cluster, options: Partial<RouterConfig.Options> = {}) =>
  DbRouter.layer({
    groups: {
      default: [{ url: cluster.primary.url, name: "first" }],
      read: cluster.replicas.map(({ url }, i) => ({ url, name: `other${i}` }))
    },
    health,
    ...options
  })

const onOwnCluster = <A, E>(
  run: (cluster: PgCluster.Cluster) => Effect.Effect<A, E, DbRouter.Services>,
  replicas: number
) =>
  Effect.flatMap(PgCluster.PgCluster, (cluster) => Effect.provide(run(cluster), router(cluster))).pipe(
    Effect.provide(PgCluster.layer({ replicas }))
  )

describe("listen", () => {
  for (const isShared of [false, true]) {
    it.live(
      `begins on the new primary right after a promotion${isShared ? ", though another stream listens to the old one" : ""}`,
      () =>
        Effect.gen(function* () {
          const { primary, replicas } = yield* PgCluster.PgCluster
          const [replica] = replicas
          const { status } = yield* DbRouter.DbRouter
          yield* until(Effect.map(status, (all) => all.every(({ state }) => state === "up")))
          if (isShared) yield* heard("old")
          yield* replica!.promote
          const { take } = yield* collecting("news")
          yield* listens(replica!)
          // LISTEN may be on its way yet.
          const told = yield* Effect.fork(take)
          yield* until(
            Effect.zipRight(
              replica!.query("NOTIFY news, 'of the new primary'"),
              Effect.map(Effect.delay(told.poll, "50 millis"), Option.isSome)
            )
          )
          assert.strictEqual(yield* Fiber.join(told), "of the new primary")
          yield* listens(primary, 0)
        }).pipe(
          // So long that nothing but the look tells in time.
          Effect.provide(
            Layer.unwrapEffect(
              Effect.map(PgCluster.PgCluster, (cluster) =>
                router(cluster, { health: { interval: "60 seconds", timeout: "500 millis" } })
              )
            )
          ),
          Effect.provide(PgCluster.layer({ replicas: 1 }))
        ),
      60_000
    )
  }

  for (const how of ["alive", "frozen", "killed"]) {
    it.live(
      `goes to the new primary after a promotion, the old one being ${how}`,
      () =>
        onOwnCluster(
          (cluster) =>
            Effect.gen(function* () {
              const { primary, replicas } = cluster
              const [replica] = replicas
              const before = yield* heard("news")
              if (how === "frozen") yield* primary.freeze
              if (how === "killed") yield* primary.kill
              yield* replica!.promote
              const error = yield* failure(before)
              if (how !== "killed") isMissing(error)
              assert.match(String(error), /notifications may have been missed/)
              const after = yield* Effect.retry(heard("news"), { times: 3 })
              yield* notify("news", "after")
              yield* until(Effect.map(after.take, (payload) => payload === "after"))
              assert.strictEqual(yield* listening(replica!), 1)
              yield* Fiber.interrupt(after.fiber)
              yield* listens(replica!, 0)
              if (how === "frozen") yield* primary.thaw
            }),
          1
        ),
      { timeout: 60_000 }
    )
  }
})

layer(PgCluster.layer({ replicas: 1 }), { excludeTestServices: true, timeout: "2 minutes" })("listen", (it) => {
  const scenario = (
    name: string,
    run: (cluster: PgCluster.Cluster) => Effect.Effect<void, unknown, DbRouter.Services>
  ) =>
    it.effect(
      name,
      () => Effect.flatMap(PgCluster.PgCluster, (cluster) => Effect.provide(run(cluster), router(cluster))),
      { timeout: 60_000 }
    )

  scenario("fails when the primary is drained, and goes on once it is back", ({ primary }) =>
    Effect.gen(function* () {
      const service = yield* DbRouter.DbRouter
      const before = yield* heard("drained")
      yield* service.drain("first")
      isMissing(yield* failure(before))
      yield* listens(primary, 0)
      const after = yield* collecting("drained")
      yield* Effect.sleep("200 millis")
      assert.strictEqual(yield* listening(primary), 0)
      yield* service.undrain("first")
      yield* listens(primary)
      yield* Fiber.interrupt(after.fiber)
    })
  )

  scenario("fails when the primary's engine is bound to another server, and not for another password", ({ primary }) =>
    Effect.gen(function* () {
      const service = yield* DbRouter.DbRouter
      const before = yield* heard("bound")
      const url = new URL(Redacted.value(primary.url))
      url.searchParams.set("sslmode", "disable")
      yield* service.rebind("first", { url: Redacted.make(url.href) })
      yield* Effect.sleep("600 millis")
      yield* notify("bound", "still there")
      yield* until(Effect.map(before.take, (payload) => payload === "still there"))
      url.hostname = "localhost"
      yield* service.rebind("first", { url: Redacted.make(url.href) })
      isMissing(yield* failure(before))
      const after = yield* heard("bound")
      yield* Fiber.interrupt(after.fiber)
      yield* listens(primary, 0)
    })
  )

  it.scoped(
    "fails when the network has forgotten the connection",
    () =>
      Effect.gen(function* () {
        const { primary } = yield* PgCluster.PgCluster
        const proxy = yield* Proxy.make({ host: "127.0.0.1", port: primary.port })
        yield* Effect.gen(function* () {
          const before = yield* heard("silence")
          proxy.silent = true
          const error = yield* failure(before)
          assert.match(String(error), /notifications may have been missed/)
        }).pipe(
          Effect.provide(
            DbRouter.layer({
              groups: { default: [{ host: proxy.host, port: proxy.port, ...partsOf(primary) }] },
              // Nothing but its own questions finds it.
              health: false
            })
          )
        )
      }),
    { timeout: 60_000 }
  )

  it.scoped("ends at every stage, interrupted once or twice, and leaves no connection", () =>
    Effect.gen(function* () {
      const { primary } = yield* PgCluster.PgCluster
      const proxy = yield* Proxy.make({ host: "127.0.0.1", port: primary.port })
      const layer = DbRouter.layer({
        groups: { default: [{ host: proxy.host, port: proxy.port, ...partsOf(primary) }] },
        health: false
      })
      yield* Effect.gen(function* () {
        const client = yield* PgClient.PgClient
        for (const stage of ["connecting", "LISTEN", "listening"]) {
          for (const others of [0, 1]) {
            for (const times of [1, 2]) {
              const companion = others === 0 ? undefined : yield* heard("companion")
              if (stage === "connecting") proxy.onConnect = Effect.never
              if (stage === "LISTEN") proxy.onRequest = Effect.delay(Effect.void, "300 millis")
              const fibers: Array<Fiber.RuntimeFiber<unknown, unknown>> = []
              for (let i = 0; i < 3; i++) {
                const stream = Stream.runDrain(client.listen(`channel${i % 2}`))
                const twice = Effect.timeoutOption(Effect.timeoutOption(stream, 100), 120)
                fibers.push(yield* Effect.forkDaemon(times === 1 ? stream : twice))
              }
              yield* Effect.sleep("60 millis")
              if (stage === "listening") proxy.silent = true
              const [took] = yield* Effect.timed(
                Effect.forEach(fibers, (fiber) => (times === 1 ? Fiber.interrupt(fiber) : Fiber.await(fiber)), {
                  concurrency: "unbounded"
                })
              )
              assert.isBelow(Duration.toMillis(took), 4_000, `${stage} ${others} ${times}`)
              proxy.silent = false
              proxy.onConnect = Effect.void
              proxy.onRequest = Effect.void
              if (companion !== undefined) yield* Fiber.interrupt(companion.fiber)
              yield* listens(primary, 0)
              // Nothing that was left behind keeps the next one waiting.
              const next = yield* heard("next")
              yield* Fiber.interrupt(next.fiber)
              yield* listens(primary, 0)
            }
          }
        }
      }).pipe(Effect.provide(layer))
    }).pipe(Effect.timeout("100 seconds"))
  )

  it.scoped("ends with the layer, for streams that are there and those that come", () =>
    Effect.gen(function* () {
      const cluster = yield* PgCluster.PgCluster
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(router(cluster), scope)
      const collected = yield* Effect.provide(heard("closed"), context)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(RouterError.reasonOf(yield* failure(collected)), Option.some("RouterClosed"))
      yield* listens(cluster.primary, 0)
      const client = Context.get(context, PgClient.PgClient)
      const late = yield* Effect.flip(Stream.runDrain(client.listen("closed")))
      assert.deepStrictEqual(RouterError.reasonOf(late), Option.some("RouterClosed"))
    })
  )
})
