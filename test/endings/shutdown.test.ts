import { SqlClient } from "@effect/sql"
import { assert, describe, layer } from "@effect/vitest"
import { Chunk, Context, Deferred, type Duration, Effect, Exit, Fiber, Layer, Option, Scope, Stream } from "effect"
import { DbRouter, RouterError } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as engines from "../support/engine.js"
import * as proxies from "../support/proxy.js"

interface Options {
  readonly shutdownTimeout?: Duration.DurationInput
  readonly maxConnections?: number
}

const nodes = Effect.map(PgCluster.PgCluster, (cluster) => cluster.nodes)

/** A router over the cluster whose layer is closed by `close`. */
const open = ({ maxConnections = 3, ...options }: Options = {}) =>
  Effect.gen(function* () {
    const { primary, replicas } = yield* PgCluster.PgCluster
    const at = (node: PgCluster.Node) => ({ url: node.url, name: node.name, maxConnections })
    const router = DbRouter.layer({ groups: { default: [at(primary)], read: replicas.map(at) }, ...options })
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
    const services = yield* Layer.buildWithScope(router, scope)
    const sql = Context.get(services, SqlClient.SqlClient)
    return { sql, router: Context.get(services, DbRouter.DbRouter), close: Scope.close(scope, Exit.void) }
  })

/** The sessions that any router has on any server. */
const sessions = Effect.flatMap(nodes, (nodes) =>
  Effect.map(Effect.all(nodes.map((node) => engines.activity(node, "effect-db-router%"))), (each) => each.flat())
)

const none = Effect.tap(
  engines.eventually(sessions, (all) => all.length === 0),
  () => Effect.void
)

/** Waits until the servers have begun the statements that say so. */
const isRunning = (...texts: ReadonlyArray<string>) =>
  engines.eventually(sessions, (all) => texts.every((text) => all.some(({ query }) => query.includes(text))))

const isClosed = (error: unknown) =>
  assert.deepStrictEqual(RouterError.reasonOf(error), Option.some<RouterError.Reason>("RouterClosed"))

engines.refuseWarnings()

layer(PgCluster.layer({ replicas: 1 }), { excludeTestServices: true })("closing the layer", (it) => {
  describe("lets work finish that", () => {
    it.scoped("runs, on every server", () =>
      Effect.gen(function* () {
        const { close, sql } = yield* open()
        const read = yield* Effect.fork(sql`SELECT pg_sleep(1), 'read' AS done`)
        const write = yield* Effect.fork(DbRouter.primary(sql`SELECT pg_sleep(1), 'write' AS done`))
        yield* isRunning("'read'", "'write'")
        yield* close
        assert.deepStrictEqual(yield* Fiber.join(read), [{ pg_sleep: "", done: "read" }])
        assert.deepStrictEqual(yield* Fiber.join(write), [{ pg_sleep: "", done: "write" }])
        assert.deepStrictEqual(yield* sessions, [])
      })
    )

    it.scoped("waits for a connection", () =>
      Effect.gen(function* () {
        const { close, router, sql } = yield* open({ maxConnections: 1 })
        const statements = Array.from({ length: 10 }, (_, i) => DbRouter.primary(sql`SELECT pg_sleep(0.02), ${i} AS i`))
        const fiber = yield* Effect.fork(Effect.all(statements, { concurrency: "unbounded" }))
        yield* engines.eventually(router.status, ([primary]) => primary!.pool.waiting > 5)
        yield* close
        assert.strictEqual((yield* Fiber.join(fiber)).length, 10)
        assert.deepStrictEqual(yield* sessions, [])
      })
    )

    it.scoped("is a transaction, to its commit", () =>
      Effect.gen(function* () {
        const { close, sql } = yield* open()
        yield* sql`CREATE TABLE finished (id int)`
        const begun = yield* Deferred.make<void>()
        const transaction = yield* Effect.fork(
          sql.withTransaction(
            Effect.gen(function* () {
              yield* sql`INSERT INTO finished VALUES (1)`
              yield* Deferred.succeed(begun, undefined)
              yield* Effect.sleep("100 millis")
              yield* sql.withTransaction(sql`INSERT INTO finished VALUES (2)`)
            })
          )
        )
        yield* Deferred.await(begun)
        yield* close
        yield* Fiber.join(transaction)
        const { primary } = yield* PgCluster.PgCluster
        assert.deepStrictEqual(yield* primary.query("select id from finished order by id"), [{ id: 1 }, { id: 2 }])
      })
    )

    it.scoped("is a stream, to its last row", () =>
      Effect.gen(function* () {
        const { close, sql } = yield* open()
        const begun = yield* Deferred.make<void>()
        const rows = sql`SELECT g FROM generate_series(1, 500) g`.stream.pipe(
          Stream.rechunk(100),
          Stream.mapChunksEffect((chunk) =>
            Effect.as(Effect.zipRight(Deferred.succeed(begun, undefined), Effect.sleep("20 millis")), chunk)
          )
        )
        const fiber = yield* Effect.fork(Stream.runCollect(rows))
        yield* Deferred.await(begun)
        yield* close
        assert.strictEqual(Chunk.size(yield* Fiber.join(fiber)), 500)
      })
    )
  })

  describe("cuts what runs longer than the limit:", () => {
    it.scoped("it fails with the reason, and no server works on it any more", () =>
      Effect.gen(function* () {
        const { primary } = yield* PgCluster.PgCluster
        yield* primary.query("create table cut (id int)")
        const { close, sql } = yield* open({ shutdownTimeout: "200 millis" })
        const work = [
          sql`SELECT pg_sleep(600), 'a read'`,
          sql`INSERT INTO cut SELECT 1 FROM pg_sleep(600)`,
          Stream.runDrain(sql`SELECT pg_sleep(600), 'a stream'`.stream),
          sql.withTransaction(Effect.zipRight(sql`INSERT INTO cut VALUES (2)`, sql`SELECT pg_sleep(600), 'inside'`)),
          sql.withTransaction(Effect.zipRight(sql`INSERT INTO cut VALUES (3)`, Effect.never))
        ]
        const fibers = yield* Effect.all(work.map((one) => Effect.fork(Effect.flip(Effect.asVoid(one)))))
        yield* isRunning("'a read'", "INSERT INTO cut SELECT", "'a stream'", "'inside'")
        const seen = yield* engines.troubles(close)
        assert.deepStrictEqual(seen, [])
        yield* none
        const errors = yield* Effect.all(fibers.slice(0, 4).map(Fiber.join))
        const [, write] = errors
        // The server may have carried it out by then.
        assert.isTrue(RouterError.isOutcomeUnknown(write))
        const found = Option.getOrThrow(RouterError.fromSqlError(write))
        for (const error of [errors[0], found.cause, errors[2], errors[3]]) isClosed(error)
        yield* Fiber.interrupt(fibers[4]!)
        assert.deepStrictEqual(yield* primary.query("select * from cut"), [])
      })
    )

    it.scoped("it fails though it still waits for a connection", () =>
      Effect.gen(function* () {
        const { close, sql } = yield* open({ maxConnections: 1, shutdownTimeout: "100 millis" })
        const busy = yield* Effect.fork(Effect.flip(DbRouter.primary(sql`SELECT pg_sleep(600), 'busy'`)))
        yield* isRunning("'busy'")
        const waiting = yield* Effect.fork(
          Effect.all(
            Array.from({ length: 5 }, () => Effect.flip(DbRouter.primary(sql`SELECT 1`))),
            {
              concurrency: "unbounded"
            }
          )
        )
        const reserving = yield* Effect.fork(Effect.flip(Effect.scoped(sql.reserve)))
        yield* Effect.yieldNow()
        yield* close
        for (const error of [yield* Fiber.join(busy), ...(yield* Fiber.join(waiting)), yield* Fiber.join(reserving)]) {
          isClosed(error)
        }
      })
    )

    it.scoped("a connection that is being opened", () =>
      Effect.gen(function* () {
        const { primary } = yield* PgCluster.PgCluster
        const proxy = yield* proxies.make(primary)
        proxy.onConnect = Effect.never
        const pool = yield* Scope.make()
        const { host, port } = proxy
        const on = yield* Scope.extend(
          engines.make({ ...engines.partsOf(primary), host, port, shutdownTimeout: "100 millis" }),
          pool
        )
        const fiber = yield* Effect.fork(Effect.flip(on.query(engines.statement("select 1"))))
        yield* engines.eventually(Effect.sync(proxy.open), (open) => open === 1)
        yield* Scope.close(pool, Exit.void)
        isClosed(yield* Fiber.join(fiber))
        yield* engines.eventually(Effect.sync(proxy.open), (open) => open === 0)
      })
    )

    it.scoped("but never sends a cancel to a commit", () =>
      Effect.gen(function* () {
        const { primary } = yield* PgCluster.PgCluster
        const proxy = yield* proxies.make(primary)
        yield* primary.query("create table committed (id int)")
        const scope = yield* Scope.make()
        const { host, port } = proxy
        const router = DbRouter.layer({
          groups: { default: [{ ...engines.partsOf(primary), host, port }] },
          shutdownTimeout: "100 millis"
        })
        const sql = Context.get(yield* Layer.buildWithScope(router, scope), SqlClient.SqlClient)
        const held = yield* Deferred.make<void>()
        proxy.onMessage = (type, body) =>
          type === "C" && body.toString().startsWith("COMMIT")
            ? Effect.zipRight(Deferred.succeed(held, undefined), Effect.never)
            : undefined
        const fiber = yield* Effect.fork(Effect.flip(sql.withTransaction(sql`INSERT INTO committed VALUES (1)`)))
        yield* Deferred.await(held)
        yield* Scope.close(scope, Exit.void)
        const error = yield* Fiber.join(fiber)
        assert.deepStrictEqual(RouterError.reasonOf(error), Option.some<RouterError.Reason>("OutcomeUnknown"))
        assert.strictEqual(proxy.cancels(), 0)
        assert.deepStrictEqual(yield* primary.query("select * from committed"), [{ id: 1 }])
      })
    )
  })

  it.scoped("refuses whatever comes after it has begun", () =>
    Effect.gen(function* () {
      const { close, sql } = yield* open()
      yield* sql`SELECT 1`
      const busy = yield* Effect.fork(DbRouter.primary(sql`SELECT pg_sleep(1), 'busy'`))
      yield* isRunning("'busy'")
      const reserved = yield* Scope.make()
      yield* Scope.extend(sql.reserve, reserved)
      const closing = yield* Effect.fork(close)
      const isRefused = Effect.map(Effect.exit(DbRouter.primary(sql`SELECT 1`)), Exit.isFailure)
      yield* engines.eventually(isRefused, (refused) => refused)
      const attempts = [
        DbRouter.primary(sql`SELECT 1`),
        Stream.runDrain(DbRouter.stream.primary(sql`SELECT 1`.stream)),
        Effect.scoped(sql.reserve),
        sql.withTransaction(sql`SELECT 1`)
      ]
      for (const attempt of attempts) isClosed(yield* Effect.flip(Effect.asVoid(attempt)))
      yield* Fiber.join(busy)
      yield* Scope.close(reserved, Exit.void)
      yield* Fiber.join(closing)
      for (const attempt of [...attempts, sql`SELECT 1`, Stream.runDrain(sql`SELECT 1`.stream)]) {
        isClosed(yield* Effect.flip(Effect.asVoid(attempt)))
      }
      assert.deepStrictEqual(yield* sessions, [])
    })
  )

  it.scoped("with a limit of nothing closes at once", () =>
    Effect.gen(function* () {
      const { close, sql } = yield* open({ shutdownTimeout: 0 })
      yield* sql`SELECT 1`
      const busy = yield* Effect.fork(Effect.flip(DbRouter.primary(sql`SELECT pg_sleep(600), 'busy'`)))
      yield* isRunning("'busy'")
      yield* close
      isClosed(yield* Fiber.join(busy))
      yield* none
    })
  )

  it.scoped("whether or not a connection was ever used", () =>
    Effect.gen(function* () {
      const { close } = yield* open()
      yield* close
      assert.deepStrictEqual(yield* sessions, [])
    })
  )
})
