/** What a notification announces, its reader finds, wherever the read goes. */
import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, Fiber, Ref, Stream } from "effect"
import { Consistency } from "effect-db-router"
import * as Causal from "../support/causal.js"
import * as RouterTest from "../support/router.js"

const { insertOutside, look, standingStill } = Causal

type Found = readonly [found: boolean, engine: unknown]

/** Reads with `read` what a channel announces, while another system's client inserts and notifies. */
const announced = (
  channel: string,
  consume: (
    stream: Stream.Stream<string, unknown>,
    note: (id: number) => Effect.Effect<void, unknown, RouterTest.Services>
  ) => Effect.Effect<unknown, unknown, RouterTest.Services>,
  times: number
) =>
  Effect.gen(function* () {
    const client = yield* PgClient.PgClient
    const { primary } = yield* RouterTest.PgCluster.PgCluster
    const all = yield* Ref.make<ReadonlyArray<Found>>([])
    const note = (id: number) => Effect.flatMap(look(id), (found) => Ref.update(all, (found_) => [...found_, found]))
    const fiber = yield* Effect.fork(consume(client.listen(channel), (id) => (id < 0 ? Effect.void : note(id))))
    yield* Effect.repeat(
      Effect.delay(
        primary.query("SELECT FROM pg_stat_activity WHERE application_name = 'effect-db-router listen'"),
        "20 millis"
      ),
      { until: (rows) => rows.length === 1 }
    )
    yield* Effect.sleep("100 millis")
    for (let i = 0; i < times; i++) {
      const id = yield* insertOutside
      yield* primary.query("SELECT pg_notify($1, $2)", [channel, String(id)])
    }
    yield* Effect.repeat(Effect.delay(Ref.get(all), "10 millis"), { until: (found) => found.length >= times }).pipe(
      Effect.timeout("10 seconds")
    )
    yield* Fiber.interrupt(fiber)
    return yield* Ref.get(all)
  })

const inTurn = (
  stream: Stream.Stream<string, unknown>,
  note: (id: number) => Effect.Effect<void, unknown, RouterTest.Services>
) => Stream.runForEach(stream, (id) => note(Number(id)))

const atOnce = (
  stream: Stream.Stream<string, unknown>,
  note: (id: number) => Effect.Effect<void, unknown, RouterTest.Services>
) => Stream.runDrain(Stream.mapEffect(stream, (id) => note(Number(id)), { concurrency: 4, unordered: true }))

layer(Causal.layer({ consistency: Consistency.causal() }), { excludeTestServices: true, timeout: "2 minutes" })(
  "a notification",
  (it) => {
    for (const [name, consume] of Object.entries({ inTurn, atOnce })) {
      it.effect(`is read by the primary while no replica has what it announces: ${name}`, () =>
        Effect.gen(function* () {
          const all = yield* standingStill(announced(`still_${name}`, consume, 12))
          assert.deepStrictEqual([...new Set(all.map(([found, engine]) => `${found} ${engine}`))], ["true primary"])
        })
      )

      it.effect(`is read by replicas where they have it: ${name}`, () =>
        Effect.gen(function* () {
          yield* RouterTest.settle
          const all = yield* announced(`going_${name}`, consume, 40)
          assert.isTrue(all.every(([found]) => found))
          const onReplicas = all.filter(([, engine]) => engine !== "primary").length
          assert.isAtLeast(onReplicas, 10)
        })
      )
    }

    it.effect("costs few questions, however many come at once", () =>
      Effect.gen(function* () {
        const client = yield* PgClient.PgClient
        const { primary } = yield* RouterTest.PgCluster.PgCluster
        const last = yield* Deferred.make<void>()
        const fiber = yield* Effect.fork(
          Stream.runForEach(client.listen("many"), (payload) =>
            payload === "300" ? Deferred.succeed(last, undefined) : Effect.void
          )
        )
        yield* Effect.sleep("500 millis")
        const questions = Effect.map(RouterTest.ranOn("pg_current_wal_insert_lsn"), (names) => names.length)
        const before = yield* questions
        yield* primary.query("SELECT pg_notify('many', i::text) FROM generate_series(1, 300) i")
        yield* Effect.timeout(Deferred.await(last), "10 seconds")
        yield* Effect.sleep("300 millis")
        assert.isBelow((yield* questions) - before, 60)
        yield* Fiber.interrupt(fiber)
      })
    )
  }
)

layer(Causal.layer({ consistency: Consistency.window("10 seconds") }), {
  excludeTestServices: true,
  timeout: "2 minutes"
})("a notification, where reads go by time,", (it) => {
  it.effect("sends the reads after it to the primary for that long", () =>
    Effect.gen(function* () {
      const all = yield* standingStill(announced("timed", inTurn, 5))
      assert.isTrue(all.every(([found]) => found))
    })
  )
})
