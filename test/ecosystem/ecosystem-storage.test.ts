import { fileURLToPath } from "node:url"
import { PersistedQueue } from "@effect/experimental"
import { CommandExecutor, Error as PlatformError } from "@effect/platform"
import * as NodeContext from "@effect/platform-node/NodeContext"
import { SqlClient, SqlPersistedQueue } from "@effect/sql"
import { PgMigrator } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Effect, Layer, Logger, LogLevel, Redacted, Ref, Schema } from "effect"
import { DbRouter } from "effect-db-router"
import * as RouterTest from "../support/router.js"

const table = (text: string) => Effect.flatMap(SqlClient.SqlClient, (sql) => DbRouter.primary(sql.unsafe(text).values))

layer(Layer.merge(RouterTest.layer(), NodeContext.layer), { excludeTestServices: true, timeout: "2 minutes" })(
  "PgMigrator",
  (it) => {
    const migrations: PgMigrator.Loader = PgMigrator.fromRecord({
      "0001_create_land": Effect.flatMap(SqlClient.SqlClient, (sql) => sql`CREATE TABLE land (id int PRIMARY KEY)`),
      "0002_add_name": Effect.flatMap(SqlClient.SqlClient, (sql) =>
        Effect.zipRight(sql`ALTER TABLE land ADD name text`, sql`INSERT INTO land VALUES (1, 'Peru')`)
      )
    })

    it.effect("runs what is new, once, on the primary, and readers see it", () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const [done, statements] = yield* RouterTest.traced(
          Effect.all([PgMigrator.run({ loader: migrations }), PgMigrator.run({ loader: migrations })])
        )
        assert.deepStrictEqual(done, [
          [
            [1, "create_land"],
            [2, "add_name"]
          ],
          []
        ])
        const changes = statements.filter(({ kind, reason }) => kind !== "read" || reason === "inside a transaction")
        assert.isAbove(changes.length, 8)
        assert.deepStrictEqual(new Set(changes.map(({ engine }) => engine)), new Set(["primary"]))
        yield* RouterTest.settle
        const [rows, [read]] = yield* RouterTest.traced(sql`SELECT * FROM land`)
        assert.deepStrictEqual(rows, [{ id: 1, name: "Peru" }])
        assert.strictEqual(read?.group, "read")
      })
    )

    it.effect("a migration that fails leaves nothing", () =>
      Effect.gen(function* () {
        const loader = PgMigrator.fromRecord({
          "0003_half": Effect.flatMap(SqlClient.SqlClient, (sql) =>
            Effect.zipRight(sql`CREATE TABLE half (id int)`, sql`SELECT wrong`)
          )
        })
        assert.strictEqual((yield* Effect.exit(PgMigrator.run({ loader })))._tag, "Failure")
        assert.deepStrictEqual(yield* table("SELECT to_regclass('half')"), [[null]])
        assert.deepStrictEqual(yield* table("SELECT max(migration_id) FROM effect_sql_migrations"), [[2]])
      })
    )

    it.effect("from files, several at once", () =>
      Effect.gen(function* () {
        const directory = fileURLToPath(new URL("../support/migrations", import.meta.url))
        const options = { table: "city_migrations" }
        // The migrator itself is not ready for two that find no table at the same moment.
        yield* PgMigrator.run({ ...options, loader: PgMigrator.fromRecord({}) })
        yield* RouterTest.settle
        const run = PgMigrator.run({ ...options, loader: PgMigrator.fromFileSystem(directory) })
        const done = yield* Effect.all([run, run, run], { concurrency: "unbounded" })
        assert.deepStrictEqual(done.flat(), [
          [1, "create_city"],
          [2, "add_cities"]
        ])
        assert.deepStrictEqual(yield* table("SELECT name FROM city ORDER BY id"), [["Rome"], ["Oslo"]])
      })
    )

    it.effect("runs again while the replicas do not have its table yet", () =>
      Effect.gen(function* () {
        const { replicas } = yield* RouterTest.PgCluster.PgCluster
        const run = PgMigrator.run({
          table: "lag_migrations",
          loader: PgMigrator.fromRecord({ "0001_a": Effect.void })
        })
        // A program that starts anew knows nothing of what another one has written.
        const anew = Effect.provide(run, RouterTest.router())
        yield* Effect.forEach(replicas, (replica) => replica.pauseReplay)
        const done = yield* Effect.all([anew, anew]).pipe(
          Effect.ensuring(Effect.orDie(Effect.forEach(replicas, (replica) => replica.resumeReplay)))
        )
        assert.deepStrictEqual(done, [[[1, "a"]], []])
      })
    )

    it.effect("as a layer below the program, whose reads still go to replicas", () =>
      Effect.gen(function* () {
        const loader = PgMigrator.fromRecord({
          "0001_river": Effect.flatMap(SqlClient.SqlClient, (sql) => sql`CREATE TABLE river (id int)`)
        })
        const Migrations = PgMigrator.layer({ loader, table: "river_migrations" })
        const [rows, [read]] = yield* RouterTest.traced(
          Effect.gen(function* () {
            yield* (yield* RouterTest.PgCluster.PgCluster).awaitReplayed
            return yield* (yield* SqlClient.SqlClient)`SELECT * FROM river`
          })
        ).pipe(Effect.provide(Layer.provideMerge(Migrations, RouterTest.router())))
        assert.deepStrictEqual(rows, [])
        assert.strictEqual(read?.group, "read")
      })
    )

    it.effect("dumps the schema of the primary, with the client's own credentials", () =>
      Effect.gen(function* () {
        const { primary } = yield* RouterTest.PgCluster.PgCluster
        const environments: Array<Record<string, string | undefined>> = []
        const recording = CommandExecutor.makeExecutor((command) => {
          assert.strictEqual(command._tag === "StandardCommand" && command.command, "pg_dump")
          environments.push(command._tag === "StandardCommand" ? Object.fromEntries(command.env) : {})
          return Effect.fail(
            new PlatformError.SystemError({
              reason: "NotFound",
              module: "Command",
              method: "start",
              pathOrDescriptor: ""
            })
          )
        })
        yield* PgMigrator.run({
          table: "dump_migrations",
          schemaDirectory: "unused",
          loader: PgMigrator.fromRecord({ "0001_nothing": Effect.void })
        }).pipe(
          Effect.provideService(CommandExecutor.CommandExecutor, recording),
          Logger.withMinimumLogLevel(LogLevel.None)
        )
        const url = new URL(Redacted.value(primary.url))
        assert.isAbove(environments.length, 0)
        for (const environment of environments) {
          assert.deepInclude(environment, {
            PGHOST: "127.0.0.1",
            PGPORT: String(primary.port),
            PGUSER: url.username,
            PGPASSWORD: url.password,
            PGDATABASE: "postgres"
          })
        }
      })
    )
  }
)

const Queue = PersistedQueue.layer.pipe(
  Layer.provide(SqlPersistedQueue.layerStore({ pollInterval: "20 millis" })),
  Layer.provideMerge(RouterTest.layer())
)

layer(Queue, { excludeTestServices: true, timeout: "2 minutes" })("SqlPersistedQueue", (it) => {
  it.effect("every element is taken once, a failed one again, all on the primary", () =>
    Effect.gen(function* () {
      const queue = yield* PersistedQueue.make({ name: "jobs", schema: Schema.Struct({ n: Schema.Number }) })
      yield* Effect.forEach([1, 2, 3, 4, 5, 6], (n) => queue.offer({ n }))
      const seen = yield* Ref.make<ReadonlyArray<number>>([])
      const failedOnce = yield* Ref.make(false)
      const worker = queue
        .take(({ n }) =>
          n === 3
            ? Effect.flatMap(Ref.getAndSet(failedOnce, true), (before) =>
                before ? Ref.update(seen, (all) => [...all, n]) : Effect.fail("once")
              )
            : Ref.update(seen, (all) => [...all, n])
        )
        .pipe(Effect.ignore, Effect.forever)
      yield* Effect.raceFirst(
        Effect.all([worker, worker, worker], { concurrency: "unbounded", discard: true }),
        Effect.repeat(Effect.delay(Ref.get(seen), "20 millis"), { until: (all) => all.length === 6 })
      ).pipe(Effect.timeout("20 seconds"))
      assert.deepStrictEqual([...(yield* Ref.get(seen))].sort(), [1, 2, 3, 4, 5, 6])
      assert.deepStrictEqual(
        yield* table("SELECT completed, attempts, count(*)::int FROM effect_queue GROUP BY 1, 2 ORDER BY 2"),
        [
          [true, 1, 5],
          [true, 2, 1]
        ]
      )
      assert.deepStrictEqual(new Set(yield* RouterTest.ranOn("effect_queue")), new Set(["primary"]))
    })
  )
})
