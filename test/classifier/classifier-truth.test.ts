import { assert, describe, layer } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import { SqlClassifier } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import pg from "pg"
import { harmless } from "../../src/internal/classifier/rules.js"
import { corpus, schema } from "../support/corpus.js"

/** A cluster with the corpus' schema, which its standby has replayed. */
const Cluster = Layer.effectDiscard(
  Effect.gen(function* () {
    const cluster = yield* PgCluster.PgCluster
    yield* cluster.primary.query(schema)
    yield* cluster.awaitReplayed
  })
).pipe(Layer.provideMerge(PgCluster.layer({ replicas: 1 })))

const classifier = Effect.gen(function* () {
  const { primary } = yield* PgCluster.PgCluster
  return yield* SqlClassifier.fromCatalog({ load: SqlClassifier.readCatalog((sql) => primary.query(sql)) })
})

const connect = (node: PgCluster.Node, options = "") =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const client = new pg.Client({ connectionString: Redacted.value(node.url), options })
      client.on("error", () => {})
      await client.connect()
      return client
    }),
    (client) => Effect.promise(() => client.end())
  )

/** The error of a statement whose parameters are all NULL. */
const errorOf = (client: pg.Client, sql: string) =>
  Effect.promise(async () => {
    const count = Math.max(0, ...[...sql.matchAll(/\$(\d+)/g)].map((match) => Number(match[1])))
    try {
      await client.query(count === 0 ? sql : { text: sql, values: new Array(count).fill(null) })
      return undefined
    } catch (error) {
      return error as pg.DatabaseError
    }
  })

const describeError = (error: pg.DatabaseError) => `${error.code}: ${error.message}`

/** What a standby runs without an error, or answers for itself alone, though it is wrong there: shared facts of the design. */
const wrongOnStandby = `
  select pg_advisory_lock(1)
  select pg_advisory_unlock(1)
  select pg_try_advisory_xact_lock(1)
  select pg_cancel_backend(1)
  select pg_terminate_backend(1)
  select pg_reload_conf()
  select pg_stat_reset()
  select pg_stat_reset_slru(null)
  select pg_stat_reset_single_table_counters(1)
  select pg_backup_start('x')
  select pg_create_physical_replication_slot('x')
  select pg_drop_replication_slot('x')
  select pg_replication_slot_advance('x', '0/1')
  select * from pg_logical_slot_peek_changes('x', null, null)
  select pg_wal_replay_pause()
  select pg_export_snapshot()
  select pg_log_backend_memory_contexts(1)
  select lo_open(1, 262144)
  select loread(0, 10)
  select pg_read_file('PG_VERSION')
  checkpoint
  load 'plpgsql'
  discard all
  discard temp
  unlisten *
  lock table users in access share mode
  declare c cursor with hold for select 1
  select * from pg_stat_activity
  select * from pg_stat_user_tables
  select * from pg_locks
  select * from pg_prepared_xacts
  select pg_current_snapshot()
  select txid_current_snapshot()
  select last_value from orders_id_seq
  select * from orders_id_seq
  select query_to_xml('select nextval(''orders_id_seq'')', true, true, '')
`

describe("a classifier and real servers", () => {
  layer(Cluster, { timeout: "2 minutes" })((it) => {
    it.scoped("answers as people do when it knows the catalog", () =>
      Effect.gen(function* () {
        const { classify } = yield* classifier
        const wrong = corpus.flatMap((entry) => {
          const { kind, reason } = classify(entry.sql)
          const right = kind === entry.kind && (entry.reason === undefined || reason.includes(entry.reason))
          return right ? [] : [{ ...entry, answer: kind, answered: reason }]
        })
        assert.deepStrictEqual(wrong, [])
      })
    )

    it.scoped("calls nothing a read that fails on a standby", () =>
      Effect.gen(function* () {
        const { replicas } = yield* PgCluster.PgCluster
        const { classify } = yield* classifier
        const client = yield* connect(replicas[0]!)
        const reads = corpus.filter(({ kind, sql }) => kind === "read" || classify(sql).kind === "read")
        const failed: Array<string> = []
        for (const { sql } of reads) {
          const error = yield* errorOf(client, sql)
          if (error !== undefined) failed.push(`${sql}: ${describeError(error)}`)
        }
        assert.deepStrictEqual(failed, [])
        assert.isAbove(reads.length, 200)
      })
    )

    it.scoped("calls nothing a read that a primary refuses in a read-only transaction", () =>
      Effect.gen(function* () {
        const { primary } = yield* PgCluster.PgCluster
        const { classify } = yield* classifier
        const bare = yield* SqlClassifier.make
        const readOnly = "-c default_transaction_read_only=on -c statement_timeout=5s"
        const client = yield* connect(primary, readOnly)
        let refused = 0
        const wrong: Array<string> = []
        for (const entry of corpus) {
          yield* Effect.promise(() => client.query("begin read only"))
          const error = yield* errorOf(client, entry.sql)
          yield* Effect.promise(() => client.query("rollback"))
          yield* Effect.promise(() => client.query("discard all"))
          if (error?.code !== "25006") continue
          refused++
          if (entry.kind === "read" || classify(entry.sql).kind === "read") wrong.push(entry.sql)
          // Without a catalog only what it cannot know may be taken for a read.
          if (bare.classify(entry.sql).kind === "read" && entry.bare !== "read") wrong.push(entry.sql)
        }
        assert.deepStrictEqual(wrong, [])
        assert.isAbove(refused, 100)
      })
    )

    it.scoped("calls nothing a read that is wrong on a standby without an error", () =>
      Effect.gen(function* () {
        const { classify } = yield* classifier
        for (const sql of wrongOnStandby.trim().split("\n")) {
          assert.notStrictEqual(classify(sql.trim()).kind, "read", sql)
        }
      })
    )

    it.scoped("lets through only functions of PostgreSQL that a standby runs", () =>
      Effect.gen(function* () {
        const { replicas } = yield* PgCluster.PgCluster
        const { classify } = yield* SqlClassifier.make
        const client = yield* connect(replicas[0]!)
        const rows = yield* replicas[0]!.query<{ name: string; volatile: boolean; callable: boolean }>(`
          select proname as name, bool_or(provolatile = 'v') as volatile,
            bool_or(pronargs = 0 and prorettype <> all ('{trigger,event_trigger}'::regtype[]) and prokind = 'f') as callable
          from pg_proc where pronamespace = 'pg_catalog'::regnamespace group by proname`)
        const isRead = (name: string) => classify(`select * from pg_catalog."${name}"()`).kind === "read"
        assert.deepStrictEqual(
          rows.filter((row) => row.volatile && !harmless.has(row.name) && isRead(row.name)),
          []
        )
        const failed: Array<string> = []
        for (const { name } of rows.filter((row) => row.callable && isRead(row.name))) {
          const error = yield* errorOf(client, `select * from pg_catalog."${name}"()`)
          // Functions of types, which SQL cannot call, complain of that.
          if (error !== undefined && error.code !== "0A000") failed.push(`${name}: ${describeError(error)}`)
          else if (error !== undefined && /recovery|standby/.test(error.message))
            failed.push(`${name}: ${describeError(error)}`)
        }
        assert.deepStrictEqual(failed, [])
      })
    )

    it.scoped("lets through only relations of PostgreSQL that a standby reads", () =>
      Effect.gen(function* () {
        const { replicas } = yield* PgCluster.PgCluster
        const { classify } = yield* SqlClassifier.make
        const client = yield* connect(replicas[0]!)
        const rows = yield* replicas[0]!.query<{ name: string; relkind: string }>(`
          select relnamespace::regnamespace || '.' || relname as name, relkind from pg_class
          where relnamespace in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace) and relkind in ('r', 'v')`)
        const reads = rows.filter(({ name }) => classify(`table ${name}`).kind === "read")
        // Every table of the catalog is replicated; of its views, those on pg_stat_* and the like are not.
        assert.deepStrictEqual(
          rows.filter((row) => row.relkind === "r" && !reads.includes(row)),
          []
        )
        assert.deepStrictEqual(
          reads.filter(({ name }) => /pg_stat_|pg_locks|pg_settings|pg_prepared|pg_cursors|pg_sequences/.test(name)),
          []
        )
        for (const { name } of reads) {
          assert.isUndefined(yield* errorOf(client, `select * from ${name} limit 1`), name)
        }
      })
    )
  })
})
