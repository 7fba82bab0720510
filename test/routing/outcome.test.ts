import { SqlClient, type SqlError } from "@effect/sql"
import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, Fiber, Logger, Option, Redacted, Stream } from "effect"
import { DbRouter, type RouterConfig, RouterError } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as engines from "../support/engine.js"
import * as Proxy from "../support/proxy.js"

const silent = Logger.replace(Logger.defaultLogger, Logger.none)

/** A router over one server that is reached through a proxy, and a table to write to. */
const routed = <A, E, R>(
  use: (proxy: Proxy.Proxy, primary: PgCluster.Node) => Effect.Effect<A, E, R>,
  engine: Partial<RouterConfig.EngineConfig> = {}
) =>
  Effect.gen(function* () {
    const { primary } = yield* PgCluster.PgCluster
    yield* primary.query("CREATE TABLE IF NOT EXISTS written (id int)")
    yield* primary.query("TRUNCATE written")
    const proxy = yield* Proxy.make(primary)
    const at = { ...engines.partsOf(primary), host: proxy.host, port: proxy.port, name: "main", ...engine }
    const router = DbRouter.layer({ groups: { default: [at] }, health: false, shutdownTimeout: "1 second" })
    return yield* Effect.scoped(use(proxy, primary)).pipe(Effect.provide(router), Effect.provide(silent))
  })

const stored = Effect.flatMap(PgCluster.PgCluster, ({ primary }) =>
  Effect.map(primary.query<{ id: number }>("SELECT id FROM written ORDER BY id"), (rows) => rows.map(({ id }) => id))
)

const terminate = (node: PgCluster.Node, text: string) =>
  node.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE $1", [
    `%${text}%`
  ])

const isRunning = (node: PgCluster.Node, text: string) =>
  engines.eventually(engines.activity(node), (all) =>
    all.some(({ query, state }) => state === "active" && query.includes(text))
  )

/** Checks that the caller is told of the unknown outcome and of the engine; returns the error underneath. */
const isUnknown = (error: unknown): unknown => {
  const found = Option.getOrThrow(RouterError.fromSqlError(error))
  assert.deepInclude(found, { reason: "OutcomeUnknown", engine: "main" })
  assert.include((error as SqlError.SqlError).message, "whether it took effect is unknown")
  assert.include(found.message, "not retried")
  assert.strictEqual(RouterError.outcomeOf(error), "unknown")
  assert.isTrue(RouterError.isOutcomeUnknown(error))
  return found.cause
}

const isNotDone = (error: unknown) => {
  assert.strictEqual(RouterError.outcomeOf(error), "not done")
  assert.isFalse(RouterError.isOutcomeUnknown(error))
}

/** Every way to write outside a transaction. */
const ways = Effect.map(SqlClient.SqlClient, (sql) => {
  const reserved = (text: string, how: "execute" | "stream") =>
    Effect.scoped(
      Effect.flatMap(sql.reserve, (on) =>
        how === "execute" ? on.executeRaw(text, []) : Stream.runDrain(on.executeStream(text, [], undefined))
      )
    )
  return {
    "a statement": (id: number) => sql`INSERT INTO written VALUES (${id})`,
    "one with a result": (id: number) => sql`INSERT INTO written VALUES (${id}) RETURNING id`,
    values: (id: number) => sql`INSERT INTO written VALUES (${id})`.values,
    raw: (id: number) => sql`INSERT INTO written VALUES (${id})`.raw,
    unprepared: (id: number) => sql`INSERT INTO written VALUES (${id})`.unprepared,
    unsafe: (id: number) => sql.unsafe(`INSERT INTO written VALUES (${id})`),
    "several statements": (id: number) => sql.unsafe(`SELECT 1; INSERT INTO written VALUES (${id})`),
    "a text that only the server understands": (id: number) =>
      sql.unsafe(`DO $$ BEGIN EXECUTE 'INSERT INTO written VALUES (${id})'; END $$`),
    "a stream": (id: number) => Stream.runDrain(sql`INSERT INTO written VALUES (${id}) RETURNING id`.stream),
    "a reserved connection": (id: number) => reserved(`INSERT INTO written VALUES (${id})`, "execute"),
    "a stream on a reserved connection": (id: number) =>
      reserved(`INSERT INTO written VALUES (${id}) RETURNING id`, "stream")
  } satisfies Record<string, (id: number) => Effect.Effect<unknown, SqlError.SqlError>>
})

engines.refuseWarnings()

layer(PgCluster.layer({ replicas: 0, settings: { log_statement: "all" } }), {
  timeout: "60 seconds",
  excludeTestServices: true
})("a write outside a transaction", (it) => {
  it.scoped("whose connection breaks before the server has it, or after that: unknown, and it is either", () =>
    routed((proxy) =>
      Effect.gen(function* () {
        let id = 0
        const expected: Array<number> = []
        for (const [name, way] of Object.entries(yield* ways)) {
          // The server never sees it.
          yield* way(++id)
          expected.push(id)
          proxy.onRequest = Effect.never
          const before = yield* Effect.fork(Effect.flip(way(++id)))
          yield* Effect.sleep("30 millis")
          proxy.reset()
          const cause = isUnknown(yield* Fiber.join(before))
          assert.instanceOf(cause, Error, name)
          proxy.onRequest = Effect.void
          assert.deepStrictEqual(yield* stored, expected, name)
          // The server's answer never comes.
          yield* way(++id)
          expected.push(id, ++id)
          proxy.onMessage = (type) => (type === "C" ? Effect.never : undefined)
          const after = yield* Effect.fork(Effect.flip(way(id)))
          if (name.includes("stream")) yield* Effect.sleep("100 millis")
          else yield* engines.eventually(stored, (all) => all.includes(id))
          proxy.reset()
          isUnknown(yield* Fiber.join(after))
          proxy.onMessage = () => undefined
          // A stream commits when its end is asked for, so it is the other outcome.
          if (name.includes("stream")) expected.pop()
          assert.deepStrictEqual(yield* stored, expected, name)
        }
      })
    )
  )

  it.scoped("whose backend is terminated, or whose server dies: unknown, with what the server said", () =>
    routed((_, primary) =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const write = sql`INSERT INTO written SELECT 1 FROM pg_sleep(20)`
        const terminated = yield* Effect.fork(Effect.flip(write))
        yield* isRunning(primary, "pg_sleep(20)")
        yield* terminate(primary, "pg_sleep(20)")
        assert.strictEqual(engines.stateOf(isUnknown(yield* Fiber.join(terminated))), "57P01")
        const killed = yield* Effect.fork(Effect.flip(write))
        yield* isRunning(primary, "pg_sleep(20)")
        yield* primary.kill
        isUnknown(yield* Fiber.join(killed))
        yield* primary.start
        assert.deepStrictEqual(yield* stored, [])
        // It was run once, and never again: the log is that of the server since its start.
        assert.notInclude(yield* primary.log, "pg_sleep(20)")
      })
    )
  )

  it.scoped("to which the driver's own time limit gives no answer: unknown; the server is told to stop", () =>
    Effect.gen(function* () {
      const { primary } = yield* PgCluster.PgCluster
      const proxy = yield* Proxy.make(primary)
      const url = new URL(Redacted.value(primary.url))
      url.port = String(proxy.port)
      url.searchParams.set("query_timeout", "700")
      const router = DbRouter.layer({
        groups: { default: [{ url: Redacted.make(url.href), name: "main" }] },
        health: false
      })
      yield* primary.query("CREATE TABLE IF NOT EXISTS written (id int)")
      yield* primary.query("TRUNCATE written")
      yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const error = yield* Effect.flip(sql`INSERT INTO written SELECT 1 FROM pg_sleep(60)`)
        assert.strictEqual(engines.stateOf(isUnknown(error)), "Query read timeout")
        yield* engines.eventually(engines.activity(primary), (all) => all.every(({ state }) => state !== "active"))
        assert.deepStrictEqual(yield* stored, [])
        // The server has committed, and its answer is lost.
        proxy.onMessage = (type, body) => (type === "C" && body.includes("COMMIT") ? Effect.never : undefined)
        for (const unit of [sql.withTransaction, DbRouter.session] as const) {
          const commit = unit(sql`INSERT INTO written VALUES (2)`) as Effect.Effect<unknown, SqlError.SqlError>
          const lost = yield* Effect.flip(commit)
          assert.strictEqual(RouterError.outcomeOf(lost), "unknown")
        }
        assert.deepStrictEqual(yield* stored, [2, 2])
      }).pipe(Effect.provide(router), Effect.provide(silent))
    })
  )

  it.scoped("that was never sent: not done, and its message says so", () =>
    routed(
      (proxy, primary) =>
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          // A busy pool.
          const busy = yield* Effect.fork(sql`INSERT INTO written SELECT 1 FROM pg_sleep(0.6)`)
          yield* isRunning(primary, "pg_sleep(0.6)")
          const waiting = yield* Effect.flip(sql`INSERT INTO written VALUES (2)`)
          assert.strictEqual(waiting.message, "Failed to acquire connection")
          isNotDone(waiting)
          yield* Fiber.join(busy)
          // What cannot be converted.
          const cycle: Record<string, unknown> = {}
          cycle.cycle = cycle
          isNotDone(yield* Effect.flip(sql.unsafe("INSERT INTO written VALUES ($1)", [cycle])))
          isNotDone(yield* Effect.flip(Stream.runDrain(sql.unsafe("INSERT INTO written VALUES ($1)", [cycle]).stream)))
          // A connection of one's own that had broken before.
          yield* Effect.scoped(
            Effect.gen(function* () {
              const on = yield* sql.reserve
              yield* on.executeRaw("SELECT 'mine'", [])
              yield* terminate(primary, "'mine'")
              yield* Effect.sleep("100 millis")
              for (const write of [
                on.executeRaw("INSERT INTO written VALUES (3)", []),
                Stream.runDrain(on.executeStream("INSERT INTO written VALUES (3)", [], undefined))
              ]) {
                const error = yield* Effect.flip(write)
                assert.include(error.message, "was not sent")
                assert.strictEqual(engines.stateOf(error), "57P01")
                isNotDone(error)
              }
            })
          )
          // A server that is not there.
          yield* primary.stop
          proxy.reset()
          const refused = yield* Effect.flip(sql`INSERT INTO written VALUES (4)`)
          assert.strictEqual(refused.message, "Failed to acquire connection")
          isNotDone(refused)
          yield* primary.start
          assert.deepStrictEqual(yield* stored, [1])
        }),
      { maxConnections: 1, connectTimeout: "200 millis" }
    )
  )

  it.scoped("that the server has refused, and anything in a transaction: not done", () =>
    routed((proxy, primary) =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        for (const failing of [sql`INSERT INTO written SELECT 1 / 0`, sql`INSERT INTO nowhere VALUES (1)`]) {
          isNotDone(yield* Effect.flip(failing))
          isNotDone(yield* Effect.flip(Stream.runDrain(failing.stream)))
          isNotDone(yield* Effect.flip(sql.withTransaction(failing)))
        }
        for (const unit of [sql.withTransaction, DbRouter.session] as const) {
          const write = Effect.zipRight(
            sql`INSERT INTO written VALUES (1)`,
            sql`INSERT INTO written SELECT 2 FROM pg_sleep(20)`
          )
          const broken = yield* Effect.fork(Effect.flip(unit(write) as Effect.Effect<unknown, SqlError.SqlError>))
          yield* isRunning(primary, "pg_sleep(20)")
          yield* terminate(primary, "pg_sleep(20)")
          isNotDone(yield* Fiber.join(broken))
          const reset = unit(
            Effect.zipRight(
              sql`INSERT INTO written VALUES (3)`,
              Effect.zipRight(
                Effect.sync(() => proxy.reset()),
                sql`INSERT INTO written VALUES (4)`
              )
            )
          ) as Effect.Effect<unknown, SqlError.SqlError>
          isNotDone(yield* Effect.flip(reset))
        }
        assert.deepStrictEqual(yield* stored, [])
      })
    )
  )

  it.scoped("a read is never of unknown outcome: it fails with what happened", () =>
    routed((_, primary) =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const read = sql`SELECT pg_sleep(20)`
        for (const one of [read, Stream.runDrain(read.stream), DbRouter.primary(read)]) {
          const reading = yield* Effect.fork(Effect.flip(one as Effect.Effect<unknown, SqlError.SqlError>))
          yield* isRunning(primary, "pg_sleep(20)")
          yield* terminate(primary, "pg_sleep(20)")
          const error = yield* Fiber.join(reading)
          assert.strictEqual(engines.stateOf(error), "57P01")
          isNotDone(error)
        }
      })
    )
  )
})

/** A message of the protocol. */
const message = (type: string, body: Buffer) => {
  const head = Buffer.alloc(5)
  head.write(type)
  head.writeInt32BE(body.length + 4, 1)
  return Buffer.concat([head, body])
}

/** What a server never says when it is asked to commit. */
const odd = {
  "a row": message("D", Buffer.from([0, 1, 0, 0, 0, 1, 0x31])),
  "the end of an INSERT": message("C", Buffer.from("INSERT 0 1\0")),
  "two more ends": Buffer.concat(["SET", "SELECT 1"].map((tag) => message("C", Buffer.from(`${tag}\0`)))),
  "the end of a transaction that is not this one": message("C", Buffer.from("ROLLBACK\0"))
}

/** Statements that write, and such of which only the server knows whether they have: it is asked with the COMMIT. */
const writes = ["INSERT INTO written VALUES (1)", "DO $$ BEGIN INSERT INTO written VALUES (1); END $$"]

layer(PgCluster.layer({ replicas: 0 }), { timeout: "60 seconds", excludeTestServices: true })("a commit", (it) => {
  for (const [what, said] of Object.entries(odd)) {
    it.scoped(`is unknown, and neither committed nor rolled back, when ${what} comes before its answer`, () =>
      routed((proxy, primary) =>
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          type Body = Effect.Effect<unknown, SqlError.SqlError, DbRouter.DbRouter>
          const units: Record<string, (body: Body) => Body> = {
            transaction: sql.withTransaction,
            session: (body) => DbRouter.session(body),
            serializable: (body) => DbRouter.session(body, { isolation: "serializable" })
          }
          for (const [name, unit] of Object.entries(units)) {
            for (const write of writes) {
              const hooks: Array<string> = []
              const body = sql
                .unsafe(write)
                .pipe(
                  Effect.zipRight(DbRouter.afterCommit(Effect.sync(() => hooks.push("committed")))),
                  Effect.zipRight(DbRouter.afterRollback(Effect.sync(() => hooks.push("rolled back"))))
                )
              proxy.said = (type, body) => (type === "C" && body.includes("COMMIT") ? said : undefined)
              const error = yield* Effect.flip(unit(body))
              proxy.said = () => undefined
              assert.strictEqual(RouterError.outcomeOf(error), "unknown")
              assert.match(error.message, /COMMIT/)
              if (what === "the end of an INSERT")
                assert.match(error.message, /answered with neither COMMIT nor ROLLBACK/)
              assert.deepStrictEqual([name, write, yield* stored, hooks], [name, write, [1], []])
              yield* primary.query("TRUNCATE written")
            }
          }
        })
      )
    )
  }
})

describe("what an error says of the outcome", () => {
  const cause = new Error("gone")
  for (const [outcome, isUnknown, error] of [
    ["unknown", true, RouterError.outcomeUnknown("statement", { cause })],
    ["unknown", true, RouterError.outcomeUnknown("commit", { cause })],
    ["partly done", true, RouterError.partialCommit({ committed: ["a"], rolledBack: [], unknown: ["b"], cause })],
    ["partly done", false, RouterError.partialCommit({ committed: ["a"], rolledBack: ["b"], cause })],
    ["not done", false, RouterError.connectionLost({ cause })],
    ["not done", false, RouterError.commitRolledBack()],
    ["not done", false, RouterError.noEngineAvailable("default")],
    ["not done", false, RouterError.sessionClosed()],
    ["not done", false, RouterError.routerClosed()]
  ] as const) {
    it(`${error.description}: ${outcome}`, () => {
      for (const one of [
        error,
        RouterError.toSqlError(error),
        { _tag: "Mine", cause: RouterError.toSqlError(error) }
      ]) {
        assert.strictEqual(RouterError.outcomeOf(one), outcome)
        assert.strictEqual(RouterError.isOutcomeUnknown(one), isUnknown)
      }
    })
  }
})
