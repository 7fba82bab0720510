import { SqlClient, SqlError } from "@effect/sql"
import { assert } from "@effect/vitest"
import { Deferred, Effect, Layer, Logger, LogLevel, Option, Stream } from "effect"
import { DbRouter, RouterError, Session } from "effect-db-router"
import * as RouterTest from "./router.js"

let routers = 0

/** A router over the cluster in the context, whose connections can be told from those of others. */
export const router = (options: RouterTest.Options = {}) =>
  Layer.suspend(() =>
    RouterTest.router({ ...options, engine: { applicationName: `sessions${++routers}`, ...options.engine } }).pipe(
      // Tests break servers and connections: a log of each would hide what matters.
      Layer.provide(Logger.minimumLogLevel(LogLevel.Error))
    )
  )

const cluster = RouterTest.PgCluster.PgCluster

/** Runs statements on the primary, outside the router. */
export const onPrimary = <A extends object>(sql: string, parameters?: ReadonlyArray<unknown>) =>
  Effect.flatMap(cluster, ({ primary }) => primary.query<A>(sql, parameters))

/** A cluster with a table `note` (and what else a test needs), and a router over it that knows it. */
export const layerWith = (...schema: ReadonlyArray<string>) =>
  router().pipe(
    Layer.provideMerge(
      Layer.effectDiscard(
        Effect.gen(function* () {
          yield* onPrimary("CREATE TABLE note (id int PRIMARY KEY, v text)")
          yield* Effect.forEach(schema, (text) => onPrimary(text))
          yield* RouterTest.settle
        })
      )
    ),
    Layer.provideMerge(RouterTest.cluster)
  )

/** Empties the table, of which `stored` tells what is there. Nothing is due to a test before. */
export const setUp = Effect.gen(function* () {
  yield* onPrimary("TRUNCATE note CASCADE")
  yield* RouterTest.settle
  return yield* SqlClient.SqlClient
})

/** Inserts one row by the routed client. */
export const insert = (id: number) => Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO note VALUES (${id})`)

/** The ways in which a text runs on a connection that others use after it. */
export const ways = {
  "a statement": (text: string) => Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe(text)),
  "a stream": (text: string) => Effect.flatMap(SqlClient.SqlClient, (sql) => Stream.runDrain(sql.unsafe(text).stream)),
  "a session": (text: string) => Effect.flatMap(SqlClient.SqlClient, (sql) => DbRouter.session(sql.unsafe(text))),
  "a transaction": (text: string) =>
    Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(sql.unsafe(text))),
  "a connection from reserve": (text: string) =>
    Effect.flatMap(SqlClient.SqlClient, (sql) =>
      Effect.scoped(Effect.flatMap(sql.reserve, (connection) => connection.executeRaw(text, [])))
    )
}

/** The rows that are there, from outside. */
export const stored = Effect.map(onPrimary<{ id: number }>("SELECT id FROM note ORDER BY id"), (rows) =>
  rows.map((row) => row.id)
)

/** The process that answers a read on the primary. */
export const pid = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.map(DbRouter.primary(sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`), (rows) => rows[0]!.pid)
)

/** Ends a server process of the primary, and waits until it is gone. */
export const terminate = (pid: number) =>
  Effect.zipRight(
    onPrimary("SELECT pg_terminate_backend($1)", [pid]),
    Effect.repeat(onPrimary("SELECT FROM pg_stat_activity WHERE pid = $1", [pid]), {
      until: (rows) => rows.length === 0
    })
  )

/** How an engine's pool is used. */
export const poolOf = (name: string) =>
  Effect.map(
    Effect.flatMap(DbRouter.DbRouter, (router) => router.status),
    (engines) => engines.find((engine) => engine.name === name)!.pool
  )

/** The states of a server's connections to this router. */
export const statesOn = (node: RouterTest.PgCluster.Node) =>
  Effect.flatMap(DbRouter.DbRouter, ({ client }) =>
    Effect.map(
      node.query<{ state: string }>("SELECT state FROM pg_stat_activity WHERE application_name = $1 ORDER BY state", [
        client.config.applicationName
      ]),
      (rows) => rows.map((row) => row.state)
    )
  )

const usage = Effect.flatMap(DbRouter.DbRouter, ({ status }) =>
  Effect.map(status, (engines) =>
    engines.map(({ inFlight, name, pool, port }) => {
      const used = { name, inFlight, held: pool.total - pool.idle, waiting: pool.waiting }
      return { used, unused: { name, inFlight: 0, held: 0, waiting: 0 }, port, total: pool.total }
    })
  )
)

/** Asserts that no connection is checked out, that no transaction is open, and that both sides count the same connections. */
export const assertQuiet = Effect.gen(function* () {
  const { nodes } = yield* cluster
  // A connection that is being closed, or whose cancelled statement ends, takes a moment.
  const engines = yield* Effect.repeat(Effect.zipLeft(usage, Effect.sleep("2 millis")), {
    until: (engines) => engines.every(({ used }) => used.held === 0),
    times: 1000
  })
  assert.deepStrictEqual(
    engines.map(({ used }) => used),
    engines.map(({ unused }) => unused)
  )
  for (const node of nodes) {
    const ofNode = Effect.map(usage, (engines) =>
      engines.filter(({ port }) => port === node.port).reduce((sum, { total }) => sum + total, 0)
    )
    const counts = yield* Effect.repeat(Effect.delay(Effect.zip(statesOn(node), ofNode), "2 millis"), {
      until: ([states, total]) => states.length === total && states.every((state) => state === "idle"),
      times: 400
    })
    assert.deepStrictEqual(counts[0], new Array(counts[1]).fill("idle"), node.name)
  }
})

/** The reason of the RouterError that an effect fails with. */
export const reasonOf = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.flip(effect), (error) => Option.getOrUndefined(RouterError.reasonOf(error)))

/** The RouterError that an effect fails with. */
export const routerErrorOf = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.flip(effect), (error) => {
    assert.instanceOf(error, SqlError.SqlError)
    return Option.getOrThrow(RouterError.fromSqlError(error))
  })

/** The server's code of the error that an effect fails with. */
export const codeOf = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.flip(effect), (error) => {
    assert.instanceOf(error, SqlError.SqlError)
    return (error.cause as { readonly code?: string }).code
  })

/** A gate that one fiber waits for and another opens. */
export const gate = Effect.map(Deferred.make<void>(), (deferred) => ({
  open: Deferred.succeed(deferred, undefined),
  wait: Deferred.await(deferred)
}))

/** Waits until a server runs, or waits with, a statement that has a text. */
export const awaitRunning = (text: string, state = "active", node?: RouterTest.PgCluster.Node) =>
  Effect.flatMap(cluster, ({ primary }) =>
    Effect.repeat(
      (node ?? primary).query(
        "SELECT FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND state = $1 AND position($2 IN query) > 0",
        [state, text]
      ),
      { until: (rows) => rows.length > 0 }
    )
  )

/** Runs an effect while a COMMIT with `synchronous_commit = remote_apply` waits for a standby that replays nothing. */
export const withWaitingCommits = <A, E, R>(use: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const { replicas } = yield* cluster
    const standby = replicas[0]!
    const synchronous = (names: string) =>
      Effect.gen(function* () {
        yield* onPrimary(`ALTER SYSTEM SET synchronous_standby_names = '${names}'`)
        yield* onPrimary("SELECT pg_reload_conf()")
        yield* Effect.repeat(onPrimary<{ n: string }>("SHOW synchronous_standby_names"), {
          until: (rows) => Object.values(rows[0]!)[0] === names
        })
      })
    return yield* Effect.acquireUseRelease(
      Effect.zipRight(synchronous(standby.name), standby.pauseReplay),
      () => use,
      () => Effect.orDie(Effect.zipRight(standby.resumeReplay, synchronous("")))
    )
  })

/** A session for the rest of a scope. */
export const inScope = Session.scoped()
