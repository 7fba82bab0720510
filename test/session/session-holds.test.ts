import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { Consistency, DbRouter } from "effect-db-router"
import * as RouterTest from "../support/router.js"
import * as Sessions from "../support/session.js"

/** Where a read runs, and what the session has set there. */
interface Seen {
  readonly server: string
  readonly tenant: string | null
}

const seen = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql<Seen>`SELECT current_setting('cluster_name') AS server, current_setting('app.tenant', true) AS tenant`
).pipe(Effect.map(([row]) => row!))

const streamed = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Stream.runHead(
    sql<Seen>`SELECT current_setting('cluster_name') AS server, current_setting('app.tenant', true) AS tenant`.stream
  )
).pipe(Effect.flatten, Effect.orDie)

const onPrimary: Seen = { server: "primary", tenant: "a" }

/** What sets the tenant for the rest of a transaction, or may. */
const settings: Readonly<Record<string, string>> = {
  "SET LOCAL": "SET LOCAL app.tenant = 'a'",
  SET: "SET app.tenant = 'a'",
  "set_config(.., true)": "SELECT set_config('app.tenant', 'a', true)",
  "set_config in an INSERT": "INSERT INTO note SELECT 1, set_config('app.tenant', 'a', true)",
  "a volatile function": "SELECT be_tenant('a')",
  DO: "DO $$ BEGIN PERFORM set_config('app.tenant', 'a', true); END $$",
  "two statements": "SELECT 1; SET LOCAL app.tenant = 'a'"
}

const beTenant = `CREATE FUNCTION be_tenant(t text) RETURNS text LANGUAGE plpgsql VOLATILE AS
  $$ BEGIN RETURN set_config('app.tenant', t, true); END $$`

for (const consistency of [
  Consistency.sticky(),
  Consistency.causal(),
  Consistency.window("10 millis"),
  Consistency.eventual()
]) {
  layer(Sessions.layerWith(beTenant), { excludeTestServices: true, timeout: "2 minutes" })(
    `what a session has set in SQL, ${consistency.name}`,
    (it) => {
      const ways = {
        "a read": seen,
        "a stream": streamed,
        "DbRouter.replica": DbRouter.replica(seen),
        "a child": Effect.flatMap(Effect.fork(seen), (fiber) => fiber),
        maxStaleness: DbRouter.maxStaleness(seen, "1 minute"),
        "sql.withTransaction": Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(seen))
      }
      for (const [name, text] of Object.entries(settings)) {
        it.effect(`holds for all that follows in it: ${name}`, () =>
          Effect.gen(function* () {
            yield* Sessions.setUp
            // The policies differ in what a write of before means, not in this.
            const router = Sessions.router({ consistency })
            const found = yield* DbRouter.session(
              Effect.gen(function* () {
                const sql = yield* SqlClient.SqlClient
                yield* sql.unsafe(text)
                yield* Effect.sleep("20 millis")
                return yield* Effect.all(ways)
              })
            ).pipe(Effect.provide(router))
            for (const [way, row] of Object.entries(found)) assert.deepStrictEqual(row, onPrimary, way)
            yield* Sessions.assertQuiet
          })
        )
      }
    }
  )
}

layer(Sessions.layerWith(beTenant), { excludeTestServices: true, timeout: "2 minutes" })(
  "a session after a statement that holds",
  (it) => {
    it.effect("reads on replicas again after its transaction has ended", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        const servers = yield* DbRouter.session(
          Effect.gen(function* () {
            yield* sql`SET LOCAL app.tenant = 'a'`
            const before = yield* seen
            yield* DbRouter.rollback
            return [before.server, (yield* seen).server]
          })
        )
        assert.strictEqual(servers[0], "primary")
        assert.notStrictEqual(servers[1], "primary")
      })
    )

    for (const text of ["LOCK TABLE note", "SELECT pg_advisory_xact_lock(1)", "DECLARE c CURSOR FOR SELECT 1"]) {
      it.effect(`stays in its transaction after ${text}, and a bind group leaves it`, () =>
        Effect.gen(function* () {
          const sql = yield* Sessions.setUp
          const [here, bound] = yield* DbRouter.session(
            Effect.zipRight(
              sql.unsafe(text),
              Effect.all([DbRouter.replica(seen), DbRouter.bindGroup(seen, "analytics")])
            )
          )
          assert.strictEqual(here.server, "primary")
          assert.notStrictEqual(bound.server, "primary")
        })
      )
    }

    for (const group of ["read", "analytics", "archive"]) {
      it.effect(`refuses to run on the group ${group} without what was set`, () =>
        Effect.gen(function* () {
          const sql = yield* Sessions.setUp
          const bound = Sessions.reasonOf(DbRouter.bindGroup(seen, group))
          const set = sql`SET LOCAL app.tenant = 'a'`
          assert.strictEqual(yield* DbRouter.session(Effect.zipRight(set, bound)), "SettingsMissing")
          assert.strictEqual(yield* sql.withTransaction(Effect.zipRight(set, bound)), "SettingsMissing")
          const nested = Sessions.reasonOf(DbRouter.bindGroup(sql.withTransaction(seen), group))
          assert.strictEqual(yield* DbRouter.session(Effect.zipRight(set, nested)), "SettingsMissing")
          yield* Sessions.assertQuiet
        })
      )
    }

    it.effect("keeps to what was set on a bind group what is bound to it", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        const set = (t: string) => sql`SELECT set_config('app.tenant', ${t}, true)`
        const found = yield* DbRouter.session(
          Effect.gen(function* () {
            yield* set("a")
            yield* DbRouter.bindGroup(set("b"), "archive").pipe(Sessions.reasonOf)
            return yield* seen
          })
        )
        assert.deepStrictEqual(found, onPrimary)
        const other = yield* DbRouter.session(
          Effect.gen(function* () {
            yield* DbRouter.bindGroup(set("b"), "archive")
            yield* Sessions.insert(1)
            return [(yield* DbRouter.bindGroup(seen, "archive")).tenant, (yield* seen).tenant]
          })
        )
        assert.deepStrictEqual([other[0], other[1] ?? ""], ["b", ""])
        assert.deepStrictEqual(yield* Sessions.stored, [1])
      })
    )

    it.effect("on a replica stays on the replica, and writes nothing without what was set", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        yield* DbRouter.session(
          Effect.gen(function* () {
            yield* DbRouter.bindGroup(sql`SET LOCAL app.tenant = 'a'`, "read")
            const { server, tenant } = yield* seen
            assert.notStrictEqual(server, "primary")
            assert.strictEqual(tenant, "a")
            yield* Effect.exit(sql`SELECT 1 / 0`)
            // The transaction is aborted: a read never goes on without the setting.
            assert.strictEqual((yield* Effect.exit(seen))._tag, "Failure")
            assert.strictEqual(yield* Sessions.reasonOf(Sessions.insert(1)), "SettingsMissing")
          })
        )
        assert.deepStrictEqual(yield* Sessions.stored, [])
        yield* Sessions.assertQuiet
      })
    )
  }
)

const count = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) =>
    sql<{ n: number; server: string }>`SELECT count(*)::int AS n, current_setting('cluster_name') AS server FROM note`
).pipe(Effect.map(([row]) => row!))

layer(Sessions.layerWith(), { excludeTestServices: true, timeout: "2 minutes" })("a snapshot", (it) => {
  const units = {
    readOnly: <A, E, R>(self: Effect.Effect<A, E, R>) => DbRouter.readOnly(self),
    "reads: snapshot": DbRouter.session({ reads: "snapshot" }),
    "readOnly and reads: snapshot": DbRouter.session({
      readOnly: true,
      reads: "snapshot",
      isolation: "read committed"
    }),
    "isolation: repeatable read": DbRouter.session({ isolation: "repeatable read" }),
    "isolation: repeatable read, readOnly": DbRouter.session({ isolation: "repeatable read", readOnly: true })
  }
  const others = {
    "a read": count,
    "a read that prefers a replica": DbRouter.replica(count),
    "a read that is forced to the primary": DbRouter.primary(count),
    "one in a transaction": Effect.flatMap(SqlClient.SqlClient, (sql) => DbRouter.session(sql.withTransaction(count)))
  }
  for (const [name, unit] of Object.entries(units)) {
    for (const first of ["a replica", "the primary"]) {
      it.effect(`that begins on ${first} stays there: ${name}`, () =>
        Effect.gen(function* () {
          yield* Sessions.setUp
          const { drain, undrain } = yield* DbRouter.DbRouter
          const { replicas } = yield* RouterTest.PgCluster.PgCluster
          const each = (f: (name: string) => Effect.Effect<void, unknown>) =>
            Effect.forEach(replicas, ({ name }) => f(name), { discard: true })
          if (first === "the primary") yield* each(drain)
          const found = yield* unit(
            Effect.gen(function* () {
              const before = yield* count
              yield* Sessions.onPrimary("INSERT INTO note VALUES (1)")
              yield* RouterTest.settle
              yield* each(undrain)
              const after = yield* Effect.all(
                name === "reads: snapshot" ? { ...others, "one in a transaction": count } : others
              )
              return { before, after }
            })
          )
          for (const [way, row] of Object.entries(found.after)) assert.deepStrictEqual(row, found.before, way)
          if (first === "the primary") assert.strictEqual(found.before.server, "primary")
          yield* Sessions.assertQuiet
        })
      )
    }
  }

  it.effect("in REPEATABLE READ that may write notices another's write in between", () =>
    Effect.gen(function* () {
      const sql = yield* Sessions.setUp
      yield* Sessions.insert(1)
      const error = yield* DbRouter.session({ isolation: "repeatable read" })(
        Effect.gen(function* () {
          yield* sql`SELECT v FROM note`
          yield* Sessions.onPrimary("UPDATE note SET v = 'other'")
          yield* sql`UPDATE note SET v = 'mine'`
        })
      ).pipe(Effect.flip)
      assert.strictEqual((error.cause as { code?: string }).code, "40001")
    })
  )

  it.effect("keeps what says how to read with what is read", () =>
    Effect.gen(function* () {
      const sql = yield* Sessions.setUp
      const [before, after] = yield* DbRouter.readOnly(
        Effect.gen(function* () {
          const before = yield* seen
          yield* sql`SET LOCAL app.tenant = 'a'`
          return [before, yield* seen] as const
        })
      )
      assert.strictEqual(after.server, before.server)
      assert.strictEqual(after.tenant, "a")
    })
  )
})
