import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Layer, Random, Redacted, Stream } from "effect"
import { DbRouter, type RouterConfig } from "effect-db-router"
import * as RouterTest from "../support/router.js"
import * as Sessions from "../support/session.js"

const tenants = Array.from({ length: 20 }, (_, i) => `tenant${i}`)
const rowsOfEach = 5
const poolSize = 5

const schema = [
  "CREATE TABLE doc (tenant text NOT NULL, id int NOT NULL)",
  "ALTER TABLE doc ENABLE ROW LEVEL SECURITY",
  `CREATE POLICY own ON doc USING (tenant = nullif(current_setting('app.tenant', true), ''))`,
  `INSERT INTO doc SELECT 'tenant' || t, i FROM generate_series(0, ${tenants.length - 1}) t, generate_series(1, ${rowsOfEach}) i`,
  "CREATE ROLE app LOGIN PASSWORD 'app'",
  "GRANT SELECT, INSERT, DELETE ON doc TO app"
]

/** Row-level security is not for superusers, which is what the cluster's own user is. */
const router = Layer.unwrapEffect(
  Effect.map(RouterTest.PgCluster.PgCluster, ({ database, primary, replicas }) => {
    const engine = (node: RouterTest.PgCluster.Node): RouterConfig.EngineConfig => ({
      name: node.name,
      host: node.host,
      port: node.port,
      database,
      username: "app",
      password: Redacted.make("app"),
      maxConnections: poolSize,
      // A hundred of them wait for five connections: how long that takes is up to the machine.
      connectTimeout: "1 minute",
      applicationName: "tenants"
    })
    return Sessions.router({ groups: { default: [engine(primary)], read: replicas.map(engine) } })
  })
)

const docs = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql<{ tenant: string; id: number }>`SELECT tenant, id FROM doc`
)

const onEvery = { concurrency: "unbounded" } as const

layer(Sessions.layerWith(...schema), { excludeTestServices: true, timeout: "2 minutes" })(
  "row-level security",
  (it) => {
    it.effect(
      "200 interleaved sessions of different tenants on a pool of 5 see their own rows only, on replicas too",
      () =>
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const visit = (tenant: string, n: number) =>
            Effect.gen(function* () {
              const pause = Effect.flatMap(Random.nextIntBetween(0, 4), (millis) => Effect.sleep(millis))
              // Other sessions of the same tenant commit rows of their own for a moment.
              const isKnown = ({ id }: { readonly id: number }) => id < 1000 || id === 1000 + n
              const look = (expected: number) =>
                Effect.map(docs, (rows) => {
                  assert.lengthOf(rows.filter(isKnown), expected)
                  for (const row of rows) assert.strictEqual(row.tenant, tenant)
                })
              yield* look(rowsOfEach)
              yield* pause
              yield* Effect.all([look(rowsOfEach), look(rowsOfEach)], onEvery)
              if (n % 2 === 0) {
                const id = 1000 + n
                yield* sql`INSERT INTO doc VALUES (${tenant}, ${id})`
                yield* pause
                yield* look(rowsOfEach + 1)
                yield* sql.withTransaction(look(rowsOfEach + 1))
                const streamed = yield* Stream.runCount(
                  Stream.filter(sql<{ id: number }>`SELECT id FROM doc`.stream, isKnown)
                )
                assert.strictEqual(streamed, rowsOfEach + 1)
                const stolen = yield* Effect.either(sql.withTransaction(sql`INSERT INTO doc VALUES ('another', 1)`))
                assert.strictEqual(stolen._tag, "Left")
                assert.lengthOf(yield* sql`DELETE FROM doc WHERE id <> ${id} AND tenant <> ${tenant} RETURNING id`, 0)
                if (n % 4 === 0) yield* DbRouter.commit
                yield* sql`DELETE FROM doc WHERE id = ${id}`
              }
              yield* pause
              return n % 2 === 0 ? undefined : yield* DbRouter.replica(look(rowsOfEach))
            })
          const [, statements] = yield* RouterTest.traced(
            Effect.forEach(
              Array.from({ length: 200 }, (_, n) => n),
              (n) => {
                const tenant = tenants[n % tenants.length]!
                return DbRouter.newSession(visit(tenant, n), { settings: { "app.tenant": tenant } })
              },
              onEvery
            )
          )
          const engines = new Set(statements.map(({ engine }) => engine))
          assert.deepStrictEqual([...engines].toSorted(), ["primary", "replica1", "replica2"])
          yield* Sessions.assertQuiet
          assert.strictEqual((yield* Sessions.poolOf("primary")).total, poolSize)
        }).pipe(Effect.provide(router))
    )

    it.effect("a statement after them, on the same connections, sees no tenant and no row", () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const all = Array.from({ length: poolSize }, (_, n) => n)
        const look = sql<{ tenant: string | null; pid: number; rows: number }>`
        SELECT current_setting('app.tenant', true) AS tenant, pg_backend_pid() AS pid, (SELECT count(*)::int FROM doc) AS rows
        FROM pg_sleep(0.1)`
        for (const where of [DbRouter.primary, DbRouter.bindGroup("read")]) {
          const looking = where(look)
          const used = yield* Effect.forEach(
            all,
            (n) => DbRouter.newSession(looking, { settings: { "app.tenant": tenants[n]! } }),
            onEvery
          )
          assert.deepStrictEqual(
            used.map(([row]) => [row?.tenant, row?.rows]),
            all.map((n) => [tenants[n], rowsOfEach])
          )
          const pids = new Set(used.map(([row]) => row?.pid))
          assert.isAtLeast(pids.size, 2)
          const after = yield* Effect.forEach(all, () => looking, onEvery)
          for (const [row] of after) {
            assert.include([null, ""], row?.tenant)
            assert.strictEqual(row?.rows, 0)
          }
          const again = after.filter(([row]) => pids.has(row?.pid))
          assert.isAtLeast(again.length, 2)
        }
        yield* Sessions.assertQuiet
      }).pipe(Effect.provide(router))
    )

    it.effect("a session without settings sees no row, and reads that leave one neither", () =>
      Effect.gen(function* () {
        assert.lengthOf(yield* DbRouter.session(docs), 0)
        assert.lengthOf(yield* docs, 0)
        const left = DbRouter.detached(docs, { settings: "none" })
        const nested = DbRouter.session(Effect.all([docs, DbRouter.detached(docs), left]), {
          settings: { "app.tenant": "tenant1" }
        })
        const [own, detached, outside] = yield* nested
        assert.lengthOf(own, rowsOfEach)
        assert.lengthOf(detached, rowsOfEach)
        assert.lengthOf(outside, 0)
      }).pipe(Effect.provide(router))
    )

    it.effect("a text that ends the transaction, and goes on, is not sent", () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const settings = { "app.tenant": "tenant1" }
        for (const text of [
          "COMMIT; SELECT tenant, id FROM doc",
          "SELECT 1; ROLLBACK; SELECT tenant, id FROM doc",
          "COMMIT AND CHAIN; SELECT tenant, id FROM doc",
          "COMMIT; DELETE FROM doc"
        ]) {
          const ways = {
            first: DbRouter.session(sql.unsafe(text), { settings }),
            second: DbRouter.session(Effect.zipRight(docs, sql.unsafe(text)), { settings }),
            detached: DbRouter.session(DbRouter.detached(sql.unsafe(text)), { settings }),
            inTransaction: DbRouter.session(sql.withTransaction(sql.unsafe(text)), { settings })
          }
          for (const [way, run] of Object.entries(ways)) {
            assert.strictEqual(yield* Sessions.reasonOf(run), "SettingsMissing", `${way}: ${text}`)
          }
        }
        assert.deepStrictEqual((yield* DbRouter.session(docs, { settings })).length, rowsOfEach)
        yield* Sessions.assertQuiet
      }).pipe(Effect.provide(router))
    )
  }
)
