/**
 * The BEGIN of a transaction: in the packet of its first statement, and never apart from it when something goes wrong.
 */
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, Fiber, Option, Redacted, Stream } from "effect"
import { Consistency, DbRouter, type Engine, RouterError } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as engines from "../support/engine.js"
import * as Proxy from "../support/proxy.js"

engines.refuseWarnings()

const cluster = PgCluster.PgCluster

/** A router whose primary is reached through a proxy, with an empty table `note` and an INSERT into it that is prepared. */
const throughProxy = <A, E, R>(
  use: (proxy: Proxy.Proxy, sql: SqlClient.SqlClient) => Effect.Effect<A, E, R>,
  options: { readonly prepares?: boolean } = {}
) =>
  Effect.gen(function* () {
    const { primary } = yield* cluster
    yield* primary.query("CREATE TABLE IF NOT EXISTS note (id int PRIMARY KEY)")
    yield* primary.query("TRUNCATE note")
    const proxy = yield* Proxy.make(primary)
    const url = new URL(Redacted.value(primary.url))
    url.port = String(proxy.port)
    const router = DbRouter.layer({
      groups: { default: [{ url: Redacted.make(url.href), name: "primary", maxConnections: 2 }] },
      consistency: Consistency.eventual(),
      health: false,
      prepare: options.prepares ?? true
    })
    return yield* Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      // Twice on each connection: its name from the second time on.
      for (const id of [-1, -2, -3, -4]) yield* insert(id)
      yield* primary.query("TRUNCATE note")
      const result = yield* use(proxy, sql)
      const router = yield* DbRouter.DbRouter
      yield* engines.eventually(router.status, ([engine]) => engine!.inFlight === 0 && unused(engine!.pool))
      return result
    }).pipe(Effect.provide(router))
  })

const unused = ({ idle, total, waiting }: { idle: number; total: number; waiting: number }) =>
  total === idle && waiting === 0

const insert = (id: number) => Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO note VALUES (${id})`)

const stored = Effect.flatMap(cluster, ({ primary }) =>
  Effect.map(primary.query<{ id: number }>("SELECT id FROM note ORDER BY id"), (rows) => rows.map(({ id }) => id))
)

/** What the server ends with ReadyForQuery: one for each time that it is waited for. */
const trips = <A, E, R>(proxy: Proxy.Proxy, effect: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    let count = 0
    proxy.onMessage = (type) => {
      if (type === "Z") count++
      return undefined
    }
    return Effect.map(effect, (result) => [count, result] as const)
  })

const begin = (engine: Engine.Engine, sql: string) =>
  Effect.acquireRelease(engine.transaction(sql, Effect.interruptible), (connection) => connection.giveBack)

/** Breaks the connection at the first message that the client sends. */
const breakAtOnce = (proxy: Proxy.Proxy) => {
  proxy.onRequest = Effect.sync(() => {
    proxy.onRequest = Effect.void
    proxy.reset()
  })
}

/** The ways to have a transaction. */
const ways = [
  [
    "withTransaction",
    <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(self))
  ],
  ["a session", <A, E, R>(self: Effect.Effect<A, E, R>) => DbRouter.session(self)],
  [
    "a savepoint of a session",
    <A, E, R>(self: Effect.Effect<A, E, R>) =>
      Effect.flatMap(SqlClient.SqlClient, (sql) => DbRouter.session(sql.withTransaction(self)))
  ],
  [
    "a session with settings",
    <A, E, R>(self: Effect.Effect<A, E, R>) => DbRouter.session(self, { settings: { "app.user_id": "42" } })
  ]
] as const

layer(PgCluster.layer({ replicas: 0 }), { timeout: "60 seconds", excludeTestServices: true })("BEGIN", (it) => {
  it.scoped("goes out with the first statement: no round trip of its own", () =>
    throughProxy((proxy, sql) =>
      Effect.gen(function* () {
        const [inTransaction] = yield* trips(proxy, sql.withTransaction(Effect.zipRight(insert(1), insert(2))))
        assert.strictEqual(inTransaction, 3)
        const [inSession] = yield* trips(proxy, DbRouter.session(Effect.zipRight(insert(3), insert(4))))
        assert.strictEqual(inSession, 3)
        assert.deepStrictEqual(yield* stored, [1, 2, 3, 4])
        const [undone] = yield* trips(
          proxy,
          Effect.flip(sql.withTransaction(Effect.zipRight(insert(5), Effect.fail("no"))))
        )
        assert.strictEqual(undone, 2)
        assert.deepStrictEqual(yield* stored, [1, 2, 3, 4])
      })
    )
  )

  it.scoped("goes out before a statement that is not prepared", () =>
    throughProxy(
      (proxy, sql) =>
        Effect.gen(function* () {
          const [count] = yield* trips(proxy, sql.withTransaction(insert(1)))
          assert.strictEqual(count, 3)
          assert.deepStrictEqual(yield* stored, [1])
        }),
      { prepares: false }
    )
  )

  it.scoped("never goes out where nothing runs, and neither does an end", () =>
    throughProxy((proxy, sql) =>
      Effect.gen(function* () {
        const nothing = Effect.all([
          sql.withTransaction(Effect.void),
          DbRouter.session(Effect.void),
          Effect.flip(sql.withTransaction(Effect.fail("no"))),
          Effect.exit(sql.withTransaction(Effect.interrupt))
        ])
        assert.strictEqual((yield* trips(proxy, nothing))[0], 0)
      })
    )
  )

  it.scoped("has its options, with the first statement", () =>
    throughProxy((proxy, sql) =>
      Effect.gen(function* () {
        const isolation = Effect.map(
          sql<{ level: string }>`SELECT current_setting('transaction_isolation') AS level, txid_current()`,
          ([row]) => row!.level
        )
        const serializable = DbRouter.session(DbRouter.primary(isolation), { isolation: "serializable" })
        for (let i = 0; i < 4; i++) assert.strictEqual(yield* serializable, "serializable")
        assert.deepStrictEqual(yield* trips(proxy, serializable), [2, "serializable"])
      })
    )
  )

  it.scoped("has settings behind it, in the same packet", () =>
    throughProxy((proxy, sql) =>
      Effect.gen(function* () {
        const user = Effect.map(
          sql<{ id: string }>`SELECT current_setting('app.user_id') AS id, txid_current()`,
          ([row]) => row!.id
        )
        const set = DbRouter.session(DbRouter.primary(user), { settings: { "app.user_id": "42" } })
        for (let i = 0; i < 4; i++) assert.strictEqual(yield* set, "42")
        assert.deepStrictEqual(yield* trips(proxy, set), [3, "42"])
      })
    )
  )

  it.scoped("that fails takes the statement with it, and comes again with the next one", () =>
    Effect.gen(function* () {
      const { primary } = yield* cluster
      yield* primary.query("CREATE TABLE IF NOT EXISTS note (id int PRIMARY KEY)")
      yield* primary.query("TRUNCATE note")
      const engine = yield* engines.on(primary, { maxConnections: 1 })
      const text = "INSERT INTO note VALUES ($1)"
      for (const id of [1, 2, 3]) yield* engine.query(engines.statement(text, [id]))
      yield* Effect.scoped(
        Effect.gen(function* () {
          const connection = yield* begin(engine, "BEGIN ISOLATION LEVEL NONSENSE")
          assert.strictEqual(yield* engines.failure(connection.query(engines.statement(text, [4]))), "42601")
          assert.isFalse(connection.hasBegun)
          assert.strictEqual(yield* engines.failure(connection.query(engines.statement(text, [5]))), "42601")
        })
      )
      yield* Effect.scoped(
        Effect.gen(function* () {
          const connection = yield* begin(engine, "BEGIN READ ONLY")
          assert.strictEqual(yield* engines.failure(connection.query(engines.statement(text, [6]))), "25006")
          assert.isTrue(connection.hasBegun)
          yield* connection.query(engines.statement("ROLLBACK"))
        })
      )
      assert.deepStrictEqual(yield* stored, [1, 2, 3])
      assert.strictEqual(yield* engines.settled(engine), 1)
    })
  )

  for (const [name, inside] of ways) {
    it.scoped(`on a connection that breaks before it has begun: ${name} begins on another one`, () =>
      throughProxy((proxy) =>
        Effect.gen(function* () {
          breakAtOnce(proxy)
          yield* inside(Effect.zipRight(insert(1), insert(2)))
          assert.deepStrictEqual(yield* stored, [1, 2])
        })
      )
    )

    it.scoped(`on a connection that breaks once it has begun: ${name} fails, and nothing of it is there`, () =>
      throughProxy((proxy) =>
        Effect.gen(function* () {
          let begun = 0
          proxy.onMessage = (type, body) => {
            if (type === "C" && body.toString().startsWith("BEGIN")) begun++
            // Whatever follows it.
            else if (begun > 0) proxy.reset()
            return undefined
          }
          const error = yield* Effect.flip(inside(Effect.zipRight(insert(1), insert(2))))
          assert.strictEqual((error as { _tag: string })._tag, "SqlError")
          assert.strictEqual(begun, 1)
          proxy.onMessage = () => undefined
          assert.deepStrictEqual(yield* stored, [])
        })
      )
    )
  }

  it.scoped("of a stream comes before it, on another connection where that one breaks", () =>
    throughProxy((proxy, sql) =>
      Effect.gen(function* () {
        breakAtOnce(proxy)
        const rows = Stream.runCollect(sql`INSERT INTO note VALUES (1), (2) RETURNING id`.stream)
        assert.lengthOf([...(yield* sql.withTransaction(rows))], 2)
        assert.deepStrictEqual(yield* stored, [1, 2])
      })
    )
  )

  it.scoped("is cancelled with the first statement, and rolled back", () =>
    throughProxy((_, sql) =>
      Effect.gen(function* () {
        const { primary } = yield* cluster
        const slow = sql`INSERT INTO note SELECT ${7}::int FROM (SELECT pg_sleep(${0}::float)) s`
        const slower = sql`INSERT INTO note SELECT ${8}::int FROM (SELECT pg_sleep(${60}::float)) s`
        for (let i = 0; i < 4; i++) yield* Effect.zipRight(slow, sql`DELETE FROM note`)
        const asleep = engines.eventually(
          primary.query("SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND state = 'active'"),
          (rows) => rows.length === 1
        )
        for (const [, inside] of ways) {
          const fiber = yield* Effect.fork(inside(slower))
          yield* asleep
          yield* Fiber.interrupt(fiber)
          assert.isEmpty(yield* primary.query("SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))
        }
        assert.deepStrictEqual(yield* stored, [])
      })
    )
  )

  it.scoped("is acknowledged at once, so that a long first statement never runs twice", () =>
    throughProxy((_, sql) =>
      Effect.gen(function* () {
        const { primary } = yield* cluster
        yield* primary.query("CREATE SEQUENCE IF NOT EXISTS runs")
        yield* primary.query("SELECT setval('runs', 1)")
        const run = (seconds: number) => sql`SELECT nextval('runs'), pg_sleep(${seconds})`
        for (let i = 0; i < 4; i++) yield* run(0)
        const fiber = yield* Effect.fork(Effect.flip(sql.withTransaction(run(60))))
        const asleep = "FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND state = 'active'"
        yield* engines.eventually(primary.query(`SELECT ${asleep}`), (rows) => rows.length === 1)
        yield* primary.query(`SELECT pg_terminate_backend(pid) ${asleep}`)
        assert.strictEqual(engines.stateOf(yield* Fiber.join(fiber)), "57P01")
        assert.deepStrictEqual(yield* primary.query("SELECT last_value::int AS runs FROM runs"), [{ runs: 6 }])
      })
    )
  )

  it.scoped("is given up with its session: nothing runs later, and nothing is kept", () =>
    throughProxy((proxy) =>
      Effect.gen(function* () {
        const gate = yield* Deferred.make<void>()
        const waits = yield* Deferred.make<void>()
        breakAtOnce(proxy)
        proxy.onConnect = Effect.zipRight(Deferred.succeed(waits, undefined), Deferred.await(gate))
        let late: Fiber.RuntimeFiber<unknown, unknown> | undefined
        const session = DbRouter.session(
          Effect.gen(function* () {
            late = yield* Effect.forkDaemon(Effect.zipRight(insert(1), insert(2)))
            yield* Deferred.await(waits)
            return yield* Effect.fail("over")
          })
        )
        assert.strictEqual(yield* Effect.flip(session), "over")
        // No statement waits for the connection, which is not open yet.
        const error = yield* Effect.flip(Fiber.join(late!))
        assert.strictEqual(Option.getOrThrow(RouterError.reasonOf(error)), "SessionClosed")
        yield* Deferred.succeed(gate, undefined)
        proxy.onConnect = Effect.void
        assert.deepStrictEqual(yield* stored, [])
      })
    )
  )

  it.scoped("that finds no other connection: the session may try again, a transaction has failed", () =>
    throughProxy((proxy, sql) =>
      Effect.gen(function* () {
        const lose = Effect.sync(() => {
          breakAtOnce(proxy)
          proxy.onConnect = Effect.sync(() => proxy.reset())
        })
        const heal = Effect.sync(() => {
          proxy.onConnect = Effect.void
          proxy.onRequest = Effect.void
        })
        const failing = Effect.zipRight(lose, Effect.zipLeft(Effect.flip(insert(1)), heal))
        yield* DbRouter.session(failing)
        assert.deepStrictEqual(yield* stored, [])
        yield* DbRouter.session(Effect.zipRight(failing, insert(2)))
        assert.deepStrictEqual(yield* stored, [2])
        for (const after of [Effect.void, Effect.flip(insert(3))]) {
          const error = yield* Effect.flip(sql.withTransaction(Effect.zipRight(failing, after)))
          assert.strictEqual(Option.getOrThrow(RouterError.reasonOf(error)), "ConnectionLost")
        }
        assert.deepStrictEqual(yield* stored, [2])
      })
    )
  )

  it.scoped("whose statement was given up before it came: the transaction has failed", () =>
    throughProxy((proxy, sql) =>
      Effect.gen(function* () {
        const swallowed = Effect.timeoutOption(insert(1), "100 millis")
        proxy.onRequest = Effect.never
        const error = yield* Effect.flip(sql.withTransaction(Effect.zipRight(swallowed, Effect.either(insert(2)))))
        assert.strictEqual(Option.getOrThrow(RouterError.reasonOf(error)), "ConnectionLost")
        proxy.onRequest = Effect.void
        assert.deepStrictEqual(yield* stored, [])
      })
    )
  )

  it.scoped("of several fibers that begin one session together is one", () =>
    throughProxy((proxy) =>
      Effect.gen(function* () {
        let begun = 0
        proxy.onMessage = (type, body) => {
          if (type === "C" && body.toString().startsWith("BEGIN")) begun++
          return undefined
        }
        const gate = yield* Deferred.make<void>()
        const each = (id: number) => Effect.zipRight(Deferred.await(gate), insert(id))
        const all = Effect.forEach([1, 2, 3, 4], each, { concurrency: "unbounded" })
        yield* DbRouter.session(Effect.zipLeft(Effect.void, Effect.zip(Deferred.succeed(gate, undefined), all)))
        assert.strictEqual(begun, 1)
        assert.deepStrictEqual(yield* stored, [1, 2, 3, 4])
      })
    )
  )
})
