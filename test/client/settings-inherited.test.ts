import { HttpApp, HttpServerResponse } from "@effect/platform"
import { SqlClient, SqlResolver } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, type Option, Schema, Stream } from "effect"
import { DbRouter, HttpSession, Session } from "effect-db-router"
import * as Sessions from "../support/session.js"

const tenant = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql<{ t: string | null }>`SELECT current_setting('app.tenant', true) AS t`
).pipe(Effect.map(([row]) => row!.t ?? ""))

const streamed = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Stream.runHead(sql<{ t: string | null }>`SELECT current_setting('app.tenant', true) AS t`.stream)
).pipe(
  Effect.flatten,
  Effect.map(({ t }) => t ?? "")
)

const reserved = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.scoped(
    Effect.flatMap(sql.reserve, (connection) =>
      connection.execute("SELECT current_setting('app.tenant', true) AS t", [], undefined)
    )
  )
).pipe(Effect.map(([row]) => (row as { t: string | null }).t ?? ""))

const inTransaction = Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(tenant))

const hookOf = (
  hook: (
    effect: Effect.Effect<void, unknown, SqlClient.SqlClient>
  ) => Effect.Effect<void, unknown, SqlClient.SqlClient | DbRouter.DbRouter>
) =>
  Effect.gen(function* () {
    const found = yield* Deferred.make<string>()
    yield* Effect.exit(
      DbRouter.newSession(
        Effect.zipRight(Sessions.insert(1), hook(Effect.flatMap(tenant, (t) => Deferred.succeed(found, t))))
      )
    )
    return yield* Effect.timeoutTo(Deferred.await(found), {
      duration: "5 seconds",
      onSuccess: (t) => t,
      onTimeout: () => "never ran"
    })
  })

/** Where a tenant's statements run that are not simply in the session. */
const places = {
  newSession: DbRouter.newSession(tenant),
  "newSession on the primary": DbRouter.newSession(DbRouter.primary(tenant)),
  readOnly: DbRouter.readOnly(tenant),
  detached: DbRouter.detached(tenant),
  "detached on the primary": DbRouter.detached(DbRouter.primary(tenant)),
  "detached in a bind group": DbRouter.detached(DbRouter.bindGroup(tenant, "analytics")),
  "detached, a stream": DbRouter.detached(streamed),
  "detached, a transaction": DbRouter.detached(inTransaction),
  "detached, a session": DbRouter.detached(DbRouter.session(tenant)),
  "detached, reserve": DbRouter.detached(reserved),
  "detached twice": DbRouter.detached(DbRouter.newSession(DbRouter.detached(tenant))),
  "a daemon": Effect.flatMap(Effect.forkDaemon(DbRouter.detached(tenant)), (fiber) => fiber),
  "Session.scoped in detached": DbRouter.detached(Effect.scoped(Effect.zipRight(Session.scoped(), tenant))),
  reserve: reserved,
  beforeCommit: hookOf(DbRouter.beforeCommit),
  afterCommit: hookOf(DbRouter.afterCommit),
  afterRollback: hookOf((hook) => Effect.zipRight(DbRouter.afterRollback(hook), Effect.fail("no")))
}

const byId = SqlResolver.findById("Tenant", {
  Id: Schema.Number,
  Result: Schema.Struct({ id: Schema.Number, t: Schema.NullOr(Schema.String) }),
  ResultId: ({ id }) => id,
  withContext: true,
  execute: (ids) =>
    Effect.flatMap(
      SqlClient.SqlClient,
      (sql) =>
        sql`SELECT i AS id, current_setting('app.tenant', true) AS t FROM generate_series(1, 9) i WHERE ${sql.in("i", ids)}`
    )
})

/** As JavaScript calls it, whose options are not checked before. */
const untyped = (
  make: unknown,
  ...args: ReadonlyArray<unknown>
): Effect.Effect<unknown, unknown, DbRouter.DbRouter | SqlClient.SqlClient> =>
  (make as (...args: ReadonlyArray<unknown>) => Effect.Effect<unknown>)(...args)

layer(Sessions.layerWith(), { excludeTestServices: true, timeout: "2 minutes" })("the settings of a session", (it) => {
  const asTenant = DbRouter.session({ settings: { "app.tenant": "a" } })

  for (const [name, place] of Object.entries(places)) {
    it.effect(`hold in ${name}`, () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        assert.strictEqual(yield* asTenant(place), "a")
        assert.strictEqual(yield* tenant, "")
        assert.strictEqual(yield* DbRouter.primary(tenant), "")
        yield* Sessions.assertQuiet
      })
    )
  }

  it.effect("are added to, given another value, and left", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      const inside = <A, E, R>(self: Effect.Effect<A, E, R>, settings: Record<string, string> | "none") =>
        asTenant(DbRouter.newSession(self, { settings }))
      assert.strictEqual(yield* inside(tenant, { "app.other": "x" }), "a")
      assert.strictEqual(yield* inside(tenant, { "app.tenant": "b" }), "b")
      assert.strictEqual(yield* inside(DbRouter.detached(tenant), { "app.tenant": "b" }), "b")
      assert.strictEqual(yield* inside(tenant, "none"), "")
      assert.strictEqual(yield* inside(DbRouter.detached(tenant), "none"), "")
      const scoped = <A, E, R>(self: Effect.Effect<A, E, R>) =>
        Effect.scoped(Effect.zipRight(Session.scoped({ settings: { "app.tenant": "a" } }), self))
      assert.strictEqual(yield* scoped(DbRouter.detached(tenant)), "a")
      assert.strictEqual(yield* scoped(DbRouter.newSession(DbRouter.detached(tenant), { settings: "none" })), "")
      assert.strictEqual(yield* scoped(DbRouter.newSession(DbRouter.detached(inTransaction), { settings: "none" })), "")
      assert.strictEqual(yield* asTenant(DbRouter.detached(tenant, { settings: "none" })), "")
      assert.strictEqual(yield* asTenant(DbRouter.detached(DbRouter.primary(tenant), { settings: "none" })), "")
    })
  )

  const opened = <A, E, R>(self: Effect.Effect<A, E, R>, options: Parameters<typeof Session.scoped>[0]) =>
    Effect.scoped(Effect.zipRight(Session.scoped(options), self))
  const around = {
    session: <A, E, R>(self: Effect.Effect<A, E, R>) => asTenant(self),
    newSession: DbRouter.newSession({ settings: { "app.tenant": "a" } }),
    "Session.scoped": <A, E, R>(self: Effect.Effect<A, E, R>) => opened(self, { settings: { "app.tenant": "a" } })
  }
  const left = {
    "newSession, detached": DbRouter.newSession(DbRouter.detached(tenant), { settings: "none" }),
    "newSession, a transaction, detached": DbRouter.newSession(
      Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(DbRouter.detached(tenant))),
      { settings: "none" }
    ),
    "newSession, detached, a session": DbRouter.newSession(DbRouter.detached(DbRouter.session(tenant)), {
      settings: "none"
    }),
    "detached, newSession": DbRouter.detached(DbRouter.newSession(DbRouter.detached(tenant)), { settings: "none" })
  }
  for (const [name, unit] of Object.entries(around)) {
    for (const [what, self] of Object.entries(left)) {
      it.effect(`are left for all that is composed inside: ${name}, ${what}`, () =>
        Effect.gen(function* () {
          yield* Sessions.setUp
          assert.strictEqual(yield* unit(self), "")
          assert.strictEqual(yield* unit(Effect.zipRight(self, tenant)), "a")
          yield* Sessions.assertQuiet
        })
      )
    }
  }

  it.effect("of a Session.scoped that is read-only are left by newSession", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      yield* opened(DbRouter.newSession(DbRouter.detached(Sessions.insert(7)), { readOnly: false }), { readOnly: true })
      assert.deepStrictEqual(yield* Sessions.stored, [7])
    })
  )

  for (const options of [
    { settings: { role: "b" } },
    { settings: {} },
    { readOnly: true },
    { isolation: "serializable" }
  ]) {
    it.effect(`are not taken by detached: ${JSON.stringify(options)}`, () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        const exit = yield* Effect.exit(untyped(DbRouter.detached, Sessions.insert(1), options))
        assert.isTrue(Exit.isFailure(exit) && Cause.isDie(exit.cause))
        assert.include(String(exit), "RouterConfigError")
        assert.deepStrictEqual(yield* Sessions.stored, [])
      })
    )
  }

  it.effect("are fields of a plain object", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      for (const settings of [new Map([["app.tenant", "a"]]), new Date(), [["app.tenant", "a"]]]) {
        const exit = yield* Effect.exit(untyped(DbRouter.session, Sessions.insert(1), { settings }))
        assert.isTrue(Exit.isFailure(exit))
      }
      const bare = Object.assign(Object.create(null), { "app.tenant": "a" })
      assert.strictEqual(yield* DbRouter.session(tenant, { settings: bare }), "a")
      assert.deepStrictEqual(yield* Sessions.stored, [])
    })
  )

  for (const concurrency of [2, 3, "unbounded"] as const) {
    it.effect(`never share a statement with others', concurrency ${concurrency}`, () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        const { execute } = yield* byId
        const load = (id: number) =>
          Effect.map(execute(id), (found: Option.Option<{ t: string | null }>) =>
            found._tag === "Some" ? found.value.t : "none"
          )
        const units = {
          session: (t: string) => DbRouter.session({ settings: { "app.tenant": t } }),
          scoped:
            (t: string) =>
            <A, E, R>(self: Effect.Effect<A, E, R>) =>
              Effect.scoped(Effect.zipRight(Session.scoped({ settings: { "app.tenant": t } }), self)),
          detached:
            (t: string) =>
            <A, E, R>(self: Effect.Effect<A, E, R>) =>
              DbRouter.session(DbRouter.detached(self), { settings: { "app.tenant": t } })
        }
        for (const unit of Object.values(units)) {
          const found = yield* Effect.forEach(["a", "b", "c"], (t, i) => unit(t)(load(i + 1)), {
            batching: true,
            concurrency
          })
          assert.deepStrictEqual(found, ["a", "b", "c"])
        }
      })
    )
  }

  it.effect("hold in the streaming body of a response", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      const sql = yield* SqlClient.SqlClient
      const rows = sql<{ t: string | null }>`SELECT current_setting('app.tenant', true) AS t`.stream
      const app = Effect.succeed(
        HttpServerResponse.stream(Stream.map(rows, ({ t }) => new TextEncoder().encode(`tenant ${t}`)))
      ).pipe(HttpSession.middleware({ session: { settings: { "app.tenant": "a" } } }))
      const runtime = yield* Effect.runtime<DbRouter.DbRouter | SqlClient.SqlClient>()
      const text = yield* Effect.promise(async () =>
        (await HttpApp.toWebHandlerRuntime(runtime)(app)(new Request("http://localhost/"))).text()
      )
      assert.strictEqual(text, "tenant a")
      yield* Sessions.assertQuiet
    })
  )
})

layer(Sessions.layerWith(), { excludeTestServices: true, timeout: "2 minutes" })("a read-only section", (it) => {
  const write = Sessions.insert(1)
  const onReserved = (...texts: ReadonlyArray<string>) =>
    Effect.flatMap(SqlClient.SqlClient, (sql) =>
      Effect.scoped(
        Effect.flatMap(sql.reserve, (connection) =>
          Effect.forEach(texts, (text) => connection.executeRaw(text, []), { discard: true })
        )
      )
    )
  const doing = "DO $$ BEGIN INSERT INTO note VALUES (1); END $$"
  const tries: Readonly<Record<string, Effect.Effect<unknown, unknown, DbRouter.DbRouter | SqlClient.SqlClient>>> = {
    newSession: DbRouter.newSession(write),
    detached: DbRouter.detached(write),
    "detached, a transaction": DbRouter.detached(
      Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(write))
    ),
    afterCommit: DbRouter.afterCommit(write),
    reserve: onReserved("INSERT INTO note VALUES (1)"),
    "reserve, opened": onReserved("SET default_transaction_read_only = off", "INSERT INTO note VALUES (1)"),
    "reserve, DO": onReserved("BEGIN READ WRITE", doing),
    "reserve in newSession": DbRouter.newSession(onReserved("RESET ALL", doing)),
    "COMMIT as text": Effect.flatMap(SqlClient.SqlClient, (sql) => DbRouter.primary(sql`COMMIT`)),
    "SET TRANSACTION READ WRITE": Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SET TRANSACTION READ WRITE`)
  }
  const units = {
    readOnly: <A, E, R>(self: Effect.Effect<A, E, R>) => DbRouter.readOnly(self),
    "session({ readOnly: true })": DbRouter.session({ readOnly: true })
  }
  for (const [name, unit] of Object.entries(units)) {
    for (const [what, self] of Object.entries(tries)) {
      it.effect(`writes nothing: ${name}, ${what}`, () =>
        Effect.gen(function* () {
          yield* Sessions.setUp
          const exit = yield* Effect.exit(unit(self))
          if (what !== "afterCommit") assert.strictEqual(exit._tag, "Failure")
          assert.deepStrictEqual(yield* Sessions.stored, [])
          yield* Sessions.assertQuiet
        })
      )
    }

    it.effect(`is left by saying so: ${name}`, () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        yield* unit(DbRouter.newSession(Sessions.insert(1), { readOnly: false }))
        yield* unit(DbRouter.detached(Sessions.insert(2), { readOnly: false }))
        assert.deepStrictEqual(yield* Sessions.stored, [1, 2])
      })
    )
  }
})
