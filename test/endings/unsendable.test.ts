import * as Net from "node:net"
import { SqlClient } from "@effect/sql"
import { assert, describe, layer } from "@effect/vitest"
import { Cause, Effect, Exit, Stream } from "effect"
import { DbRouter, RouterError } from "effect-db-router"
import { toWire } from "../../src/internal/driver/values.js"
import * as engines from "../support/engine.js"
import * as RouterTest from "../support/router.js"

const most = 65_535

const node = Effect.map(RouterTest.PgCluster.PgCluster, (cluster) => cluster.primary)

const many = (count: number) => Array.from({ length: count }, () => 1)

/** A connection that throws when a text is sent that has the word, once. */
const throwing = (word: string) => {
  let isDone = false
  return () => {
    const socket = new Net.Socket()
    const { write } = socket
    const checked = (chunk: Buffer, ...more: ReadonlyArray<never>) => {
      if (!isDone && Buffer.from(chunk).includes(word)) {
        isDone = true
        throw new RangeError("no room")
      }
      return Reflect.apply(write, socket, [chunk, ...more])
    }
    // Connecting puts Node's own back.
    Object.defineProperty(socket, "write", { get: () => checked, set: () => {} })
    return socket
  }
}

engines.refuseWarnings()

layer(RouterTest.layer(), { excludeTestServices: true, timeout: "2 minutes" })("a statement", (it) => {
  it.scoped("takes as many values as the protocol, first as it is and then prepared", () =>
    Effect.gen(function* () {
      const on = yield* engines.on(yield* node)
      for (const count of [32_767, 32_768, most]) {
        for (let time = 0; time < 3; time++) {
          const few = "SELECT $1::int AS n"
          const missing = `SELECT count(*)::int AS n FROM (VALUES ${many(count)
            .map((_, i) => `($${i + 1}::int)`)
            .join(",")}) AS v (x)`
          assert.strictEqual(yield* engines.value(on, missing, many(count)), count)
          assert.strictEqual(
            yield* engines.failure(on.query(engines.statement(few, many(count)))),
            "08P01",
            "one that has too many for its text is the server's to refuse"
          )
        }
      }
      yield* engines.settled(on)
    })
  )

  describe("with more values than that", () => {
    const ways = {
      once: (sql, params) => Effect.flatMap(SqlClient.SqlClient, (client) => client.unsafe(sql, params)),
      "in a stream": (sql, params) =>
        Effect.flatMap(SqlClient.SqlClient, (client) => Stream.runCollect(client.unsafe(sql, params).stream)),
      "in a transaction": (sql, params) =>
        Effect.flatMap(SqlClient.SqlClient, (client) => client.withTransaction(client.unsafe(sql, params))),
      "in a stream of a transaction": (sql, params) =>
        Effect.flatMap(SqlClient.SqlClient, (client) =>
          client.withTransaction(Stream.runCollect(client.unsafe(sql, params).stream))
        ),
      "on a connection of its own": (sql, params) =>
        Effect.scoped(
          Effect.flatMap(SqlClient.SqlClient, (client) =>
            Effect.flatMap(client.reserve, (connection) => connection.execute(sql, params, undefined))
          )
        )
    } satisfies Record<
      string,
      (sql: string, params: ReadonlyArray<number>) => Effect.Effect<unknown, unknown, SqlClient.SqlClient>
    >
    for (const [name, run] of Object.entries(ways)) {
      it.effect(`fails before it is sent, ${name}`, () =>
        Effect.gen(function* () {
          const word = `unsendable ${name}`
          const sql = `INSERT INTO nowhere VALUES ($1) /* ${word} */`
          const exit = yield* Effect.exit<unknown, unknown, SqlClient.SqlClient>(run(sql, many(most + 1)))
          assert.isTrue(Exit.isFailure(exit))
          const error = Exit.isFailure(exit) && Cause.isFailType(exit.cause) ? exit.cause.error : undefined
          assert.match(
            String((error as { cause?: { message?: unknown } })?.cause?.message),
            /at most 65535 values, and this one has 65536: pass them as an array/
          )
          assert.strictEqual(RouterError.outcomeOf(error), "not done")
          assert.deepStrictEqual(yield* RouterTest.ranOn(word), [])
          const { status } = yield* DbRouter.DbRouter
          yield* engines.eventually(status, (all) =>
            all.every(({ inFlight, pool }) => inFlight === 0 && pool.idle === pool.total)
          )
        })
      )
    }
  })

  describe("that the connection throws at", () => {
    const ways = {
      "as it is": (on, sql) => on.query(engines.statement(sql)),
      "with values": (on, sql) => on.query(engines.statement(sql, [1])),
      "in a stream": (on, sql) => engines.collect(on, sql),
      "in a transaction": (on, sql) =>
        Effect.scoped(Effect.flatMap(on.reserve, (connection) => connection.query(engines.statement(sql))))
    } satisfies Record<
      string,
      (on: Effect.Effect.Success<ReturnType<typeof engines.on>>, sql: string) => Effect.Effect<unknown, unknown>
    >
    for (const [name, run] of Object.entries(ways)) {
      it.scoped(`fails, and nothing else does, ${name}`, () =>
        Effect.gen(function* () {
          const on = yield* engines.on(yield* node, { stream: throwing("too_much"), maxConnections: 2 })
          const seen = yield* engines.troubles(
            Effect.gen(function* () {
              yield* engines.value(on, "SELECT 1")
              const sql = `SELECT ${name === "with values" ? "$1::int" : "1"} AS too_much`
              const exit = yield* Effect.exit<unknown, unknown, never>(run(on, sql))
              assert.isTrue(Exit.isFailure(exit) && Cause.isFailType(exit.cause))
              const error = Exit.isFailure(exit) && Cause.isFailType(exit.cause) ? exit.cause.error : undefined
              assert.include(String((error as { cause?: unknown } | undefined)?.cause), "no room")
              for (let i = 0; i < 4; i++) assert.strictEqual(yield* engines.value(on, "SELECT 1"), 1)
            })
          )
          assert.deepStrictEqual(seen, [])
          yield* engines.settled(on)
        })
      )
    }
  })

  it.effect("has values that the server takes in one message, or fails before it is sent", () =>
    Effect.sync(() => {
      const half = Buffer.alloc(0x20000000)
      assert.lengthOf(toWire([half]), 1)
      assert.throws(() => toWire([half, half]), /take at most 1073741822 bytes, and these take 1073741824/)
      // The text takes a third of what it may take.
      assert.lengthOf(toWire(["x".repeat(400_000_000)]), 1)
    })
  )
})
