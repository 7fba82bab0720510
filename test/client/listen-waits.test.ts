/** Streams of `listen` that begin, wait and end, while others do. */
import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Effect, Fiber, Mailbox, Redacted, Schedule, Stream } from "effect"
import { DbRouter, type RouterConfig } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as Pg from "pg"
import { partsOf } from "../support/engine.js"
import * as Proxy from "../support/proxy.js"

const warnings: Array<string> = []
process.on("warning", ({ message }) => warnings.push(message))

/** A router whose primary is behind a proxy. */
const behindProxy = <A, E>(
  run: (proxy: Proxy.Proxy, primary: PgCluster.Node) => Effect.Effect<A, E, DbRouter.Services>,
  options: Partial<RouterConfig.Options> = {}
) =>
  Effect.gen(function* () {
    const { primary } = yield* PgCluster.PgCluster
    const proxy = yield* Proxy.make({ host: "127.0.0.1", port: primary.port })
    const router = DbRouter.layer({
      groups: { default: [{ host: proxy.host, port: proxy.port, ...partsOf(primary), name: "primary" }] },
      health: { interval: "200 millis", timeout: "500 millis" },
      ...options
    })
    return yield* Effect.provide(run(proxy, primary), router)
  })

const listen = (channel: string) => Stream.unwrap(Effect.map(PgClient.PgClient, (client) => client.listen(channel)))

/** Refuses every connection from now on, and counts them. */
const refusing = (proxy: Proxy.Proxy) => {
  const refused = { count: 0 }
  proxy.onConnect = Effect.sync(() => {
    refused.count++
    proxy.reset()
  })
  proxy.reset()
  return refused
}

const isDown = Effect.flatMap(DbRouter.DbRouter, ({ status }) =>
  Effect.repeat(Effect.delay(status, "20 millis"), { until: ([primary]) => primary?.state === "down" })
)

layer(PgCluster.layer({ replicas: 0 }), { excludeTestServices: true, timeout: "2 minutes" })("listen", (it) => {
  it.scoped("waits for a primary for its own limit, not for those of others", () =>
    behindProxy(
      (proxy) =>
        Effect.gen(function* () {
          const client = yield* PgClient.PgClient
          refusing(proxy)
          yield* isDown
          const began = performance.now()
          const until = (effect: Effect.Effect<unknown, unknown, PgClient.PgClient>) =>
            Effect.map(Effect.flip(effect), () => performance.now() - began)
          const [write, ...streams] = yield* Effect.all(
            [
              until(client`SELECT pg_notify('x', '')`),
              ...Arr.makeBy(16, (i) => until(Stream.runDrain(listen(`c${i}`))))
            ],
            { concurrency: "unbounded" }
          )
          // One after the other they would take sixteen times as long.
          assert.isBelow(Math.max(...streams), 4 * write, String(streams))
        }),
      { waitForPrimary: { statements: "500 millis" } }
    )
  )

  it.scoped("does not ask a primary that refuses in a storm", () =>
    behindProxy(
      (proxy) =>
        Effect.gen(function* () {
          let failures = 0
          const again = Stream.runDrain(listen("storm")).pipe(
            Effect.tapError(() => Effect.sync(() => failures++)),
            Effect.retry(Schedule.forever)
          )
          const fibers = yield* Effect.replicateEffect(Effect.forkDaemon(again), 20)
          yield* Effect.repeat(
            Effect.delay(
              Effect.sync(() => proxy.open()),
              "20 millis"
            ),
            { until: (open) => open > 0 }
          )
          const refused = refusing(proxy)
          const began = performance.now()
          yield* Effect.sleep("2 seconds")
          const seconds = (performance.now() - began) / 1_000
          yield* Fiber.interruptAll(fibers)
          // Each fails when its connection breaks, and then waits for its limit; in between it asks nothing.
          assert.isAtMost(failures, 20 * (2 + seconds), `${failures} failures`)
          // Probes ask, too.
          assert.isAtMost(refused.count, 30 * seconds, `${refused.count} connections in ${seconds} s`)
        }),
      { waitForPrimary: { statements: "1 second" } }
    )
  )

  it.scoped("does not blame the server when it is interrupted while it connects", () =>
    behindProxy((proxy) =>
      Effect.gen(function* () {
        const router = yield* DbRouter.DbRouter
        const events: Array<string> = []
        yield* Effect.forkScoped(
          Stream.runForEach(router.events, (event) => Effect.sync(() => void events.push(event._tag)))
        )
        proxy.onConnect = Effect.sleep("100 millis")
        for (let i = 0; i < 10; i++) {
          yield* Effect.timeoutOption(Stream.runDrain(listen("left")), 20 + i * 15)
        }
        const [primary] = yield* router.status
        assert.strictEqual(primary?.state, "up", primary?.reason)
        assert.deepStrictEqual(events, [])
      }).pipe(Effect.scoped)
    )
  )

  it.scoped("has no gap after its first notification, while others of its channel end", () =>
    behindProxy((proxy, primary) =>
      Effect.gen(function* () {
        const kept = yield* Effect.forkDaemon(Stream.runDrain(listen("kept")))
        const notifier = yield* Effect.acquireRelease(
          Effect.promise(async () => {
            const made = new Pg.Client({ connectionString: Redacted.value(primary.url) })
            await made.connect()
            return made
          }),
          (made) => Effect.promise(() => made.end())
        )
        let sent = 0
        const notify = Effect.promise(() => notifier.query(`SELECT pg_notify('numbers', '${sent++}')`))
        const notifying = yield* Effect.forkDaemon(Effect.forever(Effect.delay(notify, "1 millis")))
        proxy.onRequest = Effect.sleep("20 millis")
        for (let round = 0; round < 6; round++) {
          const seen = yield* Mailbox.make<string>()
          const other = yield* Effect.forkDaemon(Stream.runForEach(listen("numbers"), (payload) => seen.offer(payload)))
          yield* seen.take
          const ended = yield* Effect.fork(Fiber.interrupt(other))
          // Its UNLISTEN is on its way.
          yield* Effect.sleep(2 + round)
          const numbers = yield* Stream.runCollect(Stream.take(Stream.map(listen("numbers"), Number), 25))
          yield* Fiber.join(ended)
          const [first = 0] = numbers
          assert.deepStrictEqual(
            Array.from(numbers),
            Arr.makeBy(25, (i) => first + i)
          )
        }
        yield* Fiber.interruptAll([kept, notifying])
        assert.deepStrictEqual(
          warnings.filter((message) => message.includes("client.query")),
          []
        )
      }).pipe(Effect.scoped)
    )
  )

  it.scoped("of one stream that ends goes on being opened for the others", () =>
    behindProxy((proxy, primary) =>
      Effect.gen(function* () {
        proxy.onConnect = Effect.sleep("300 millis")
        const first = yield* Effect.forkDaemon(Stream.runDrain(listen("shared")))
        yield* Effect.sleep("50 millis")
        const seen = yield* Mailbox.make<string>()
        const second = yield* Effect.forkDaemon(Stream.runForEach(listen("shared"), (payload) => seen.offer(payload)))
        yield* Effect.sleep("50 millis")
        yield* Fiber.interrupt(first)
        const told = Effect.zipRight(primary.query("SELECT pg_notify('shared', 'x')"), Effect.sleep("50 millis"))
        yield* Effect.raceFirst(Effect.forever(told), seen.take).pipe(Effect.timeout("10 seconds"))
        assert.strictEqual(
          (yield* primary.query("SELECT FROM pg_stat_activity WHERE application_name LIKE '% listen'")).length,
          1
        )
        yield* Fiber.interrupt(second)
      })
    )
  )
})
