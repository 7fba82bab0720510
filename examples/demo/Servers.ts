/**
 * The servers, seen without the router: over a connection of one's own to each. What the demo says about its routing is
 * compared with what they answer.
 */
import * as Reactivity from "@effect/experimental/Reactivity"
import type { SqlError } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { Effect, Random, Schedule } from "effect"
import { RouterConfig } from "effect-db-router"
import { DemoError } from "./DemoError.js"

/** A server's own report. The counts begin at some time in the past, so only their differences tell anything. */
export interface Look {
  readonly standby: boolean
  /** Transactions in this database, of all clients; a statement alone is one. */
  readonly committed: number
  readonly rolledBack: number
  /** Rows that were inserted, updated or deleted in the shop's tables. */
  readonly rowsWritten: number
  /** The number of scans of the shop's tables. */
  readonly scans: number
}

/** One server that the router may send statements to. */
export interface Server {
  /** The name of its engine. */
  readonly name: string
  readonly group: string
  readonly address: string
  readonly look: Effect.Effect<Look, SqlError.SqlError>
  /** The number of these orders on it. */
  readonly countOrders: (ids: ReadonlyArray<number>) => Effect.Effect<number, SqlError.SqlError>
}

/** The difference between two looks. The role is the later one. */
export const difference = (before: Look, after: Look): Look => ({
  standby: after.standby,
  committed: after.committed - before.committed,
  rolledBack: after.rolledBack - before.rolledBack,
  rowsWritten: after.rowsWritten - before.rowsWritten,
  scans: after.scans - before.scans
})

const look = (sql: PgClient.PgClient) =>
  Effect.map(
    sql<Look>`
      SELECT pg_is_in_recovery() AS standby, d.xact_commit::float8 AS committed, (d.xact_rollback - d.conflicts)::float8 AS "rolledBack",
        coalesce(sum(t.n_tup_ins + t.n_tup_upd + t.n_tup_del), 0)::float8 AS "rowsWritten",
        coalesce(sum(t.seq_scan + coalesce(t.idx_scan, 0)), 0)::float8 AS scans
      FROM pg_stat_database d
        LEFT JOIN pg_stat_user_tables t
          ON t.schemaname = 'demo_shop' AND t.relname IN ('customers', 'products', 'orders', 'order_items', 'journal')
      WHERE d.datname = current_database()
      GROUP BY d.xact_commit, d.xact_rollback, d.conflicts`,
    ([row]) => row!
  )

const countOrders = (sql: PgClient.PgClient) => (ids: ReadonlyArray<number>) =>
  Effect.map(
    sql<{ readonly found: number }>`
      SELECT count(*)::int AS found FROM demo_shop.orders WHERE ${sql.in("id", ids)}`,
    ([row]) => row!.found
  )

const connect = ({ address, client, name }: RouterConfig.ResolvedEngine) =>
  Effect.mapError(
    PgClient.make({
      ...client,
      maxConnections: 1,
      minConnections: 0,
      idleTimeout: 0,
      applicationName: "demo observer"
    }),
    ({ cause }) =>
      new DemoError({
        message: `${name} (${address.host}:${address.port}) cannot be reached: ${cause instanceof Error ? cause.message : cause}`
      })
  )

/** A connection tells its server what it has done at last when it closes. */
const awaitClosed = (sql: PgClient.PgClient, applicationName: string) =>
  sql`SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = ${applicationName}`.pipe(
    Effect.repeat({ until: (rows) => rows.length === 0, schedule: Schedule.spaced("20 millis") }),
    // Other programs may use the router with these servers too.
    Effect.timeoutOption("3 seconds")
  )

const lockKey = 4_021_967

const ours = "effect-db-router demo"

const schema = (sql: PgClient.PgClient) =>
  Effect.map(
    sql<{ readonly exists: boolean; readonly comment: string | null }>`
      SELECT n IS NOT NULL AS exists, obj_description(n, 'pg_namespace') AS comment FROM to_regnamespace('demo_shop') n`,
    ([row]) => row!
  )

/** Puts a comment on the schema that was never there before: who has it, has all that was committed earlier. */
const mark = (sql: PgClient.PgClient) =>
  Effect.gen(function* () {
    const comment = `${ours} ${yield* Random.nextInt}`
    yield* sql`COMMENT ON SCHEMA demo_shop IS ${sql.literal(`'${comment}'`)}`
    return comment
  })

/** A schema of the demo's own for as long as the scope is open. */
const claim = (sql: PgClient.PgClient) =>
  Effect.acquireRelease(
    Effect.gen(function* () {
      const [lock] = yield* sql<{ readonly ours: boolean }>`SELECT pg_try_advisory_lock(${lockKey}) AS ours`
      if (!lock!.ours) {
        return yield* new DemoError({
          message: "Another demo is running in this database: stop it, or name another database"
        })
      }
      const { comment, exists } = yield* schema(sql)
      if (exists && comment?.startsWith(ours) !== true) {
        return yield* new DemoError({
          message: "There is a schema demo_shop that the demo has not made: rename it, or name another database"
        })
      }
      yield* sql`DROP SCHEMA IF EXISTS demo_shop CASCADE`
      yield* sql`CREATE SCHEMA demo_shop`
      yield* mark(sql)
    }),
    () => Effect.ignore(sql`DROP SCHEMA IF EXISTS demo_shop CASCADE`)
  )

export class Servers extends Effect.Service<Servers>()("demo/Servers", {
  dependencies: [Reactivity.layer],
  scoped: Effect.gen(function* () {
    const config = yield* RouterConfig.resolve(yield* RouterConfig.fromEnv)
    const nodes = yield* Effect.forEach(
      [...config.groups.values()].flatMap(({ engines, name }) => engines.map((engine) => ({ engine, group: name }))),
      ({ engine, group }) =>
        Effect.gen(function* () {
          const resolved = yield* Effect.orDie(engine.config)
          return { resolved, group, sql: yield* connect(resolved) }
        })
    )
    const primary = nodes.find(({ group }) => group === config.defaultGroup)!.sql
    yield* claim(primary)
    return {
      readGroup: config.readGroup,
      list: nodes.map(
        ({ group, resolved, sql }): Server => ({
          name: resolved.name,
          group,
          address: `${resolved.address.host}:${resolved.address.port}`,
          look: unobserved(look(sql)),
          countOrders: (ids) => unobserved(countOrders(sql)(ids))
        })
      ),
      /** Waits until the connections of a closed router are closed on all servers, and their work is counted. */
      disconnected: unobserved(
        Effect.forEach(nodes, ({ resolved, sql }) => awaitClosed(sql, resolved.client.applicationName), {
          concurrency: "unbounded",
          discard: true
        })
      ),
      /** Waits until all servers have what the primary has now. */
      awaitReplayed: Effect.gen(function* () {
        const marked = yield* mark(primary)
        yield* Effect.forEach(
          nodes,
          ({ resolved, sql }) =>
            schema(sql).pipe(
              Effect.repeat({ until: ({ comment }) => comment === marked, schedule: Schedule.spaced("20 millis") }),
              Effect.timeoutFail({
                duration: "30 seconds",
                onTimeout: () =>
                  new DemoError({ message: `${resolved.name} has not replayed in 30 s what the primary has written` })
              })
            ),
          { concurrency: "unbounded", discard: true }
        )
      }).pipe(unobserved)
    }
  }).pipe(Effect.withTracerEnabled(false))
}) {}

/** The tracer of the demo is to see the statements of the shop only. */
const unobserved = Effect.withTracerEnabled(false)
