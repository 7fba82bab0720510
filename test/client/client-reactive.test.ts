import { Reactivity } from "@effect/experimental"
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, Layer, Mailbox, Stream } from "effect"
import * as RouterTest from "../support/router.js"

const Live = Layer.merge(RouterTest.layer(), Reactivity.layer)

const setUp = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE IF NOT EXISTS reading (value int)`
  yield* sql`TRUNCATE reading`
  yield* RouterTest.settle
  return sql
})

layer(Live, { excludeTestServices: true, timeout: "2 minutes" })("reactive queries", (it) => {
  it.effect("run again on the primary, where the write that they run for is", () =>
    Effect.gen(function* () {
      const sql = yield* setUp
      const { replicas } = yield* RouterTest.PgCluster.PgCluster
      yield* Effect.forEach(replicas, (replica) => replica.pauseReplay)
      const query = Effect.map(sql<{ value: number }>`SELECT value FROM reading`, (rows) =>
        rows.map((row) => row.value)
      )
      const [seen, statements] = yield* RouterTest.traced(
        Effect.gen(function* () {
          const results = yield* Mailbox.make<ReadonlyArray<number>>()
          const fiber = yield* Effect.fork(
            Stream.runForEach(sql.reactive(["readings"], query), (values) => results.offer(values))
          )
          const first = yield* results.take
          yield* Effect.fork(Reactivity.mutation(sql`INSERT INTO reading VALUES (7)`, ["readings"]))
          const second = yield* results.take
          const mailbox = yield* sql.reactiveMailbox(["others"], query)
          const third = yield* mailbox.take
          yield* Reactivity.mutation(sql`INSERT INTO reading VALUES (8)`, ["others"])
          const fourth = yield* mailbox.take
          yield* Fiber.interrupt(fiber)
          return [first, second, third, fourth]
        })
      ).pipe(
        Effect.scoped,
        Effect.timeout("20 seconds"),
        Effect.ensuring(Effect.orDie(Effect.forEach(replicas, (replica) => replica.resumeReplay)))
      )
      assert.deepStrictEqual(seen, [[], [7], [], [7, 8]])
      assert.deepStrictEqual(
        statements.filter(({ kind }) => kind === "read").map(({ group }) => group),
        ["read", "default", "read", "default"]
      )
    })
  )
})
