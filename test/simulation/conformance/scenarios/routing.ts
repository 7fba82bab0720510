/** What a program of the library sees: where its statements go, what it reads, and how they fail. */
import type { SqlError } from "@effect/sql/SqlError"
import { Cause, Deferred, Effect, Exit, Fiber, Option, Redacted, Stream } from "effect"
import { Consistency, DbRouter, RouterError } from "effect-db-router"
import { traced } from "../../../support/router.js"
import { open, type RouterOptions, type Run, routerOver, type Scenario, type Site, scenario, until } from "../Site.js"

type Router = DbRouter.DbRouter

interface Given extends Site {
  readonly router: Router
  readonly query: (sql: string, params?: ReadonlyArray<unknown>) => Effect.Effect<ReadonlyArray<object>, SqlError>
  /** Runs in the router's sessions. */
  readonly use: <A, E>(effect: Effect.Effect<A, E, DbRouter.DbRouter>) => Effect.Effect<A, E>
}

const given = (site: Site, router: Router): Given => ({
  ...site,
  router,
  query: (sql, params = []) => router.client.unsafe<object>(sql, params),
  use: (effect) => Effect.provideService(effect, DbRouter.DbRouter, router)
})

const routed = (title: string, run: (given: Given) => ReturnType<Run>, options: RouterOptions = {}): Scenario =>
  scenario(title, (site) =>
    Effect.gen(function* () {
      const all = given(site, yield* routerOver(site, options))
      yield* isUp(all)
      return yield* run(all)
    })
  )

const lastRouted = (title: string, run: (given: Given) => ReturnType<Run>): Scenario => ({
  ...routed(title, run),
  isLast: true
})

/** What the driver has told, of an error of the library. */
const driverError = (error: unknown): Readonly<Record<string, unknown>> | undefined => {
  let found: Readonly<Record<string, unknown>> | undefined
  for (let at = error; typeof at === "object" && at !== null; at = (at as { readonly cause?: unknown }).cause) {
    if ("code" in at && typeof at.code === "string") found = at as Readonly<Record<string, unknown>>
  }
  return found
}

const shown = (error: unknown): unknown => {
  const cause = driverError(error)
  return {
    tag: (error as { readonly _tag?: unknown })._tag,
    reason: Option.getOrUndefined(RouterError.reasonOf(error)),
    outcome: RouterError.outcomeOf(error),
    ...(cause?.routine === undefined
      ? { code: cause?.code }
      : {
          code: cause.code,
          severity: cause.severity,
          routine: cause.routine,
          // A statement has its name at its second use, unless that comes late.
          message: String(cause.message).replace(/prepared statement "\w*"/, "prepared statement"),
          detail: cause.detail,
          constraint: cause.constraint
        })
  }
}

/** What comes of an effect, as plain data. */
const outcome = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<unknown, never, R> =>
  Effect.map(Effect.exit(effect), (exit) =>
    Exit.isSuccess(exit)
      ? { done: exit.value }
      : {
          failures: [...Cause.failures(exit.cause)].map(shown),
          defects: [...Cause.defects(exit.cause)].map(String),
          isInterrupted: Cause.isInterrupted(exit.cause)
        }
  )

/** Where the statements of an effect go: the role of the server, what they are taken for, and what decides. */
const route = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(traced(effect), ([value, statements]) => ({
    value,
    statements: statements.map(({ engine, kind, reason, sql }) => ({
      sql,
      on: engine === "n1" ? "primary" : "replica",
      kind,
      reason
    }))
  }))

const tokens = { keys: [Redacted.make("a key that both routers of a scenario share")] }

const write = (value: string) => `UPDATE register SET value = '${value}' WHERE id = 1`
const read = "SELECT value FROM register WHERE id = 1"
const add = (op: string) => `INSERT INTO entry VALUES ('${op}', 'f')`
const all = "SELECT op FROM entry ORDER BY op"

/** In a flow that has seen nothing. */
const fresh = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.flatten(Effect.promise(() => Effect.runPromiseExit(effect)))

const statesOf = ({ router }: Given) =>
  Effect.map(router.status, (all) => all.map(({ eligible, name, role, state }) => ({ name, eligible, role, state })))

const isUp = (given: Given) => until(statesOf(given), (states) => states.every(({ state }) => state === "up"))

export const routing: ReadonlyArray<Scenario> = [
  routed("a read goes to a replica and a write to the primary, and each is told why", ({ query }) =>
    route(
      Effect.forEach(
        [
          read,
          "SELECT 1",
          "SELECT id FROM register WHERE id = 1 FOR UPDATE",
          "SELECT pg_notify('news', 'a')",
          add("a"),
          "DELETE FROM entry",
          "SHOW server_version",
          "SET app.mark = 'a'"
        ],
        // Each as if it were the first one: what the replicas are known to have by then is chance.
        (sql) => Effect.zipRight(DbRouter.reset, query(sql))
      )
    )
  ),
  routed("a flow reads what it has written, wherever it reads", ({ query, replica, other, settled }) =>
    Effect.gen(function* () {
      yield* Effect.all([replica.pauseReplay, other.pauseReplay])
      yield* Effect.addFinalizer(() => Effect.all([replica.resumeReplay, other.resumeReplay], { discard: true }))
      yield* query(write("new"))
      const paused = yield* route(query(read))
      const stranger = yield* fresh(query(read))
      const stale = yield* route(DbRouter.replica(query(read)))
      yield* Effect.all([replica.resumeReplay, other.resumeReplay])
      yield* settled
      return [paused, stranger, stale, yield* query(read)]
    })
  ),
  routed(
    "a flow that has written stays on the primary, until it says otherwise",
    ({ query, settled }) =>
      Effect.gen(function* () {
        const before = yield* route(query(read))
        yield* query(write("new"))
        const after = yield* route(query(read))
        yield* settled
        const asked = yield* route(DbRouter.replica(query(read)))
        yield* DbRouter.reset
        return [before, after, asked, yield* route(query(read))]
      }),
    { consistency: Consistency.sticky() }
  ),
  routed("primary and replica say where a statement goes", ({ query }) =>
    Effect.all([
      route(DbRouter.primary(query(read))),
      route(DbRouter.replica(query(read))),
      outcome(DbRouter.replica(query(add("a"))))
    ])
  ),
  routed(
    "a token takes what a flow has seen to another router",
    (one) =>
      Effect.gen(function* () {
        const { other, query, replica } = one
        const two = given(one, yield* routerOver(one, { tokens }))
        const within = (token: string) => fresh(two.use(Consistency.withToken(two.query(read), token)))
        yield* Effect.all([replica.pauseReplay, other.pauseReplay])
        yield* Effect.addFinalizer(() => Effect.all([replica.resumeReplay, other.resumeReplay], { discard: true }))
        yield* query(write("new"))
        const token = yield* one.use(Consistency.currentToken)
        const without = yield* fresh(two.query(read))
        return [without, yield* within(Option.getOrThrow(token)), yield* within("nonsense")]
      }),
    { tokens }
  ),
  routed("a session is one transaction, which commits", ({ query, use }) =>
    Effect.gen(function* () {
      const inside = yield* route(
        use(
          DbRouter.session(
            Effect.all([
              query(add("a")),
              query(all),
              fresh(query(all)),
              query("SELECT pg_current_xact_id_if_assigned() IS NOT NULL AS has")
            ])
          )
        )
      )
      return [inside, yield* query(all)]
    })
  ),
  routed("a session that fails rolls back, and so does one that dies or is interrupted", ({ query, use }) =>
    Effect.gen(function* () {
      const failed = yield* outcome(use(DbRouter.session(Effect.zipRight(query(add("a")), Effect.fail("no")))))
      const died = yield* outcome(use(DbRouter.session(Effect.zipRight(query(add("b")), Effect.die("no")))))
      const has = yield* Deferred.make<void>()
      const fiber = yield* Effect.fork(
        use(DbRouter.session(Effect.all([query(add("c")), Deferred.succeed(has, undefined), Effect.never])))
      )
      yield* Deferred.await(has)
      const interrupted = yield* Effect.map(Fiber.interrupt(fiber), Exit.isInterrupted)
      return [failed, died, interrupted, yield* query(all)]
    })
  ),
  routed("hooks run after the commit, or after the rollback", ({ query, use }) =>
    Effect.gen(function* () {
      const ran: Array<string> = []
      const hooks = (name: string) =>
        Effect.all([
          DbRouter.beforeCommit(Effect.sync(() => ran.push(`${name} before`))),
          DbRouter.afterCommit(Effect.sync(() => ran.push(`${name} committed`))),
          DbRouter.afterRollback(Effect.sync(() => ran.push(`${name} rolled back`)))
        ])
      yield* use(DbRouter.session(Effect.zipRight(query(add("a")), hooks("a"))))
      yield* outcome(use(DbRouter.session(Effect.all([query(add("b")), hooks("b"), Effect.fail("no")]))))
      yield* outcome(use(DbRouter.session(Effect.zipRight(query("INSERT INTO child VALUES (1, 9)"), hooks("c")))))
      return ran
    })
  ),
  routed("a transaction in a transaction is a savepoint", ({ query, router: { client } }) =>
    Effect.gen(function* () {
      yield* client.withTransaction(
        Effect.gen(function* () {
          yield* query(add("a"))
          yield* Effect.either(client.withTransaction(Effect.zipRight(query(add("b")), query("SELECT 1 / 0"))))
          yield* client.withTransaction(query(add("c")))
          yield* Effect.either(client.withTransaction(Effect.zipRight(query(add("d")), Effect.fail("no"))))
          yield* query(add("e"))
        })
      )
      return yield* query(all)
    })
  ),
  routed("a statement that fails in a session fails it, and its COMMIT says so", ({ query, use }) =>
    Effect.gen(function* () {
      const ignored = yield* outcome(
        use(DbRouter.session(Effect.all([query(add("a")), Effect.either(query("SELECT 1 / 0")), Effect.void])))
      )
      const after = yield* outcome(
        use(DbRouter.session(Effect.all([query(add("b")), Effect.either(query("SELECT 1 / 0")), query("SELECT 2")])))
      )
      return [ignored, after, yield* query(all)]
    })
  ),
  routed("a constraint that is checked at the end fails the session's COMMIT", ({ query, use }) =>
    Effect.gen(function* () {
      const session = yield* outcome(
        use(DbRouter.session(Effect.all([query(add("a")), query("INSERT INTO child VALUES (1, 5)")])))
      )
      const alone = yield* outcome(query("INSERT INTO child VALUES (1, 5)"))
      return [session, alone, yield* query(all), yield* query("SELECT count(*) FROM child")]
    })
  ),
  routed("errors of statements are told with their code, and that nothing was done", ({ query }) =>
    Effect.forEach(
      [
        "INSERT INTO register VALUES (1, 'again', 0)",
        "INSERT INTO register VALUES (NULL, 'a', 0)",
        "SELECT 1 / 0",
        "SELECT none FROM register",
        "SELECT 1 FROM none",
        "SELEC 1",
        "SELECT 'x'::int4",
        "SELECT none(1)",
        "SELECT 1; SELECT 2",
        "SHOW none",
        "ROLLBACK TO SAVEPOINT none",
        "COPY entry FROM STDIN",
        "COPY entry TO STDOUT"
      ],
      (sql) => outcome(query(sql))
    )
  ),
  routed("a wrong value of a parameter, and a wrong number of them", ({ query }) =>
    Effect.all([
      outcome(query("SELECT value FROM register WHERE id = $1", ["x"])),
      outcome(query("SELECT value FROM register WHERE id = $1", [99999999999])),
      outcome(query("SELECT value FROM register WHERE id = $1", [])),
      outcome(query("SELECT value FROM register WHERE id = $1", [1, 2])),
      outcome(query("SELECT value FROM register WHERE id = $1", [1]))
    ])
  ),
  routed("parameters of each kind come back as they were", ({ query }) =>
    Effect.forEach(
      [
        ["int4", 7],
        ["int8", 9007199254740993n],
        ["text", "it's"],
        ["text", null],
        ["bool", true],
        ["float8", 1.5],
        ["numeric", "12.34"],
        ["timestamptz", new Date(Date.UTC(2026, 10, 30, 12, 34, 56, 789))],
        ["text[]", ["a", "b c", '"', null]],
        ["int4[]", [1, 2, 3]],
        ["text", 7],
        ["text", true]
      ] as const,
      ([type, value]) => query(`SELECT $1::${type} AS value`, [value])
    )
  ),
  routed(
    "statements with parameters are prepared once and run again",
    ({ query }) =>
      Effect.gen(function* () {
        const ask = (id: number) =>
          DbRouter.primary(query("SELECT value FROM register WHERE id = $1 AND value <> $2", [id, "none"]))
        const first = yield* Effect.forEach([1, 2, 3, 1], ask)
        yield* DbRouter.primary(query("DEALLOCATE ALL"))
        const again = yield* Effect.forEach([1, 2], ask)
        yield* DbRouter.primary(query("DISCARD ALL"))
        return [first, again, yield* ask(3)]
      }),
    { engine: { maxConnections: 1 } }
  ),
  routed(
    "a table that changes while its statements are prepared is read as it is then",
    ({ primary, query, settled, use }) =>
      Effect.gen(function* () {
        const probe = yield* open(primary)
        yield* probe.simple("DROP TABLE IF EXISTS changing")
        yield* probe.simple("CREATE TABLE changing (id int4 PRIMARY KEY, a int4)")
        yield* probe.simple("INSERT INTO changing VALUES (1, 5)")
        yield* settled
        const ask = query("SELECT * FROM changing WHERE id = $1", [1])
        const before = yield* Effect.all([ask, ask, DbRouter.primary(ask), DbRouter.primary(ask)])
        yield* probe.simple("ALTER TABLE changing ADD COLUMN b text")
        yield* settled
        const after = yield* Effect.all([ask, ask, DbRouter.primary(ask)])
        yield* probe.simple("ALTER TABLE changing ADD COLUMN c text")
        const session = yield* outcome(use(DbRouter.session(DbRouter.primary(ask))))
        yield* probe.simple("DROP TABLE changing")
        yield* settled
        return [before, after, session, yield* outcome(ask)]
      }),
    { engine: { maxConnections: 1 } }
  ),
  routed("a table that the replicas do not have yet is read on the primary", ({ other, primary, query, replica }) =>
    Effect.gen(function* () {
      const probe = yield* open(primary)
      yield* Effect.all([replica.pauseReplay, other.pauseReplay])
      yield* Effect.addFinalizer(() => Effect.all([replica.resumeReplay, other.resumeReplay], { discard: true }))
      yield* probe.simple("CREATE TABLE late (id int4 PRIMARY KEY)")
      yield* probe.simple("INSERT INTO late VALUES (7)")
      const found = yield* query("SELECT id FROM late")
      yield* Effect.all([replica.resumeReplay, other.resumeReplay])
      yield* probe.simple("DROP TABLE late")
      return found
    })
  ),
  routed("a read-only session reads one state of the data, and writes nothing", ({ query, settled, use }) =>
    Effect.gen(function* () {
      yield* settled
      const both = yield* use(
        DbRouter.readOnly(
          Effect.gen(function* () {
            const first = yield* query(read)
            yield* fresh(query(write("later")))
            yield* settled
            return [
              first,
              yield* query(read),
              yield* query("SHOW transaction_isolation"),
              yield* query("SHOW transaction_read_only")
            ]
          })
        )
      )
      return [both, yield* outcome(use(DbRouter.readOnly(query(add("a"))))), yield* query(read)]
    })
  ),
  routed("settings of a session hold for its reads and its writes", ({ query, use }) =>
    Effect.gen(function* () {
      const tenant = "SELECT current_setting('app.tenant', true) AS tenant"
      const inside = yield* use(
        DbRouter.session(Effect.all([query(tenant), query(add("a")), query(tenant)]), {
          settings: { "app.tenant": "a" }
        })
      )
      const readOnly = yield* use(
        DbRouter.newSession(query(tenant), { readOnly: true, settings: { "app.tenant": "b" } })
      )
      const empty = "SELECT coalesce(current_setting('app.tenant', true), '') AS tenant"
      return [inside, readOnly, yield* query(empty), yield* DbRouter.primary(query(empty))]
    })
  ),
  routed("SET LOCAL in a session holds until its end", ({ query, use }) =>
    Effect.gen(function* () {
      const mark = "SELECT coalesce(current_setting('app.mark', true), '') AS mark"
      const inside = yield* use(
        DbRouter.session(Effect.all([query("SET LOCAL app.mark = 'a'"), query(mark), query(add("a")), query(mark)]))
      )
      return [inside.map((rows) => rows[0] ?? null), yield* query(mark), yield* DbRouter.primary(query(mark))]
    })
  ),
  routed("a session of repeatable read fails with 40001, and can be tried again", ({ query, use }) =>
    Effect.gen(function* () {
      const session = DbRouter.session(
        Effect.gen(function* () {
          yield* query("SELECT writes FROM register WHERE id = 1")
          yield* fresh(query("UPDATE register SET writes = writes + 1 WHERE id = 1"))
          yield* query("UPDATE register SET writes = writes + 10 WHERE id = 1")
        }),
        { isolation: "repeatable read" }
      )
      return [yield* outcome(use(session)), yield* fresh(query("SELECT writes FROM register WHERE id = 1"))]
    })
  ),
  routed(
    "a statement that is interrupted is cancelled, and its connection goes on",
    ({ primary, query }) =>
      Effect.gen(function* () {
        const watcher = yield* open(primary)
        const active = watcher.values(
          "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event_type = 'Timeout' AND usename = 'app'"
        )
        const fiber = yield* Effect.fork(DbRouter.primary(query("SELECT pg_sleep(30)")))
        yield* until(active, ([count]) => count === "1")
        const interrupted = yield* Effect.map(Fiber.interrupt(fiber), Exit.isInterrupted)
        const gone = yield* until(active, ([count]) => count === "0")
        const timedOut = yield* Effect.timeoutOption(DbRouter.primary(query("SELECT pg_sleep(30)")), "200 millis")
        return [interrupted, gone, Option.isNone(timedOut), yield* DbRouter.primary(query("SELECT 1 AS one"))]
      }),
    { engine: { maxConnections: 1 } }
  ),
  routed(
    "statement_timeout, lock_timeout and a cancel of the server's are the caller's errors",
    ({ primary, query, use }) =>
      Effect.gen(function* () {
        const timeout = yield* outcome(
          use(
            DbRouter.session(
              Effect.all([query("SET LOCAL statement_timeout = 300"), query(add("a")), query("SELECT pg_sleep(30)")])
            )
          )
        )
        const holder = yield* open(primary)
        yield* holder.simple("BEGIN; UPDATE register SET writes = 1 WHERE id = 1")
        const lock = yield* outcome(
          use(DbRouter.session(Effect.all([query("SET LOCAL lock_timeout = 200"), query(write("new"))])))
        )
        const canceler = yield* open(primary)
        const pid = "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND wait_event_type = 'Lock'"
        const fiber = yield* Effect.fork(outcome(query(write("new"))))
        const [waiting] = yield* until(canceler.values(pid), (found) => found.length === 1)
        yield* canceler.simple(`SELECT pg_cancel_backend(${waiting})`)
        return [timeout, lock, yield* Fiber.join(fiber), yield* query(all)]
      })
  ),
  routed("a session whose connection the server ends fails, and says what is known", ({ primary, query, use }) =>
    Effect.gen(function* () {
      const killer = yield* open(primary)
      const pid = Effect.map(
        query("SELECT pg_backend_pid() AS pid"),
        (rows) => (rows[0] as { readonly pid: number }).pid
      )
      const ended = yield* outcome(
        use(
          DbRouter.session(
            Effect.gen(function* () {
              yield* query(add("a"))
              yield* killer.simple(`SELECT pg_terminate_backend(${yield* pid})`)
              yield* Effect.sleep("100 millis")
              yield* query(add("b"))
            })
          )
        )
      )
      return [ended, yield* query(all)]
    })
  ),
  routed("connections that the server has ended are replaced", ({ query, replica, primary }) =>
    Effect.gen(function* () {
      yield* Effect.all([query(read), query(read), DbRouter.primary(query(read))])
      for (const node of [primary, replica]) {
        const killer = yield* open(node)
        yield* killer.simple(
          `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND pid <> ${killer.pid}`
        )
      }
      yield* Effect.sleep("100 millis")
      return yield* Effect.all([outcome(query(read)), outcome(query(read)), outcome(DbRouter.primary(query(read)))])
    })
  ),
  routed("a read that a replay ends is run again elsewhere", ({ primary, query, replica, settled, vacuum, other }) =>
    Effect.gen(function* () {
      const [one, two] = yield* Effect.all([open(replica), open(other)])
      const writer = yield* open(primary)
      yield* settled
      const fiber = yield* Effect.fork(
        outcome(DbRouter.replica(query("SELECT count(*), pg_sleep(1) FROM register WHERE id = 1")))
      )
      const asleep = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Timeout' AND usename = 'app'"
      yield* until(
        Effect.map(Effect.all([one.values(asleep), two.values(asleep)]), (both) => both.flat()),
        (found) => found.length > 0
      )
      yield* writer.simple("UPDATE register SET writes = writes + 1")
      yield* vacuum
      return yield* Fiber.join(fiber)
    })
  ),
  routed("a stream has its rows in order, as many as are taken, and its error", ({ router: { client } }) =>
    Effect.gen(function* () {
      const rows = (sql: string, take: number) =>
        Effect.map(Stream.runCollect(Stream.take(client.unsafe<object>(sql).stream, take)), (chunk) => [...chunk])
      return [
        yield* Effect.map(rows("SELECT n FROM generate_series(1, 500) AS n", 1000), (found) => [
          found.length,
          found[499]
        ]),
        yield* rows("SELECT n FROM generate_series(1, 500) AS n", 3),
        yield* outcome(rows("SELECT 1 / (n - 3) AS part FROM generate_series(1, 5) AS n", 10)),
        yield* outcome(rows("SELECT none", 10)),
        yield* rows("SELECT 1 AS one", 1)
      ]
    })
  ),
  routed("a notification arrives where it is listened for", ({ router: { client } }) =>
    Effect.gen(function* () {
      const heard: Array<string> = []
      yield* Effect.forkScoped(
        Stream.runForEach(client.listen("news"), (payload) => Effect.sync(() => heard.push(payload)))
      )
      // Nothing says that it listens but what it hears.
      yield* until(
        Effect.zipRight(
          client.notify("news", "first"),
          Effect.sync(() => heard.length)
        ),
        (count) => count > 0
      )
      yield* client.notify("news", "second")
      yield* client.notify("other", "none")
      yield* until(
        Effect.sync(() => heard.at(-1)),
        (last) => last === "second"
      )
      return [...new Set(heard)]
    })
  ),
  routed("a replica that stops is left out, and is used again when it is back", (given) =>
    Effect.gen(function* () {
      const { query, replica } = given
      yield* isUp(given)
      yield* replica.stop
      const reads = yield* Effect.forEach([1, 2, 3, 4], () => fresh(query(read)))
      const without = yield* until(statesOf(given), (states) =>
        states.some(({ name, state }) => name === "n2" && state === "down")
      )
      yield* replica.start
      const back = yield* isUp(given)
      return [reads, without.filter(({ name }) => name === "n2"), back, yield* fresh(query(read))]
    })
  ),
  routed("without replicas a read is the primary's, or fails, as the options say", (given) =>
    Effect.gen(function* () {
      const { other, query, replica } = given
      const strict = { ...given, router: yield* routerOver(given, { onNoReplica: "fail" }) }
      yield* isUp(strict)
      yield* Effect.all([replica.stop, other.stop], { concurrency: 2 })
      const isDown = (all: ReadonlyArray<{ readonly state: unknown }>) =>
        all.filter(({ state }) => state === "down").length === 2
      yield* until(statesOf(given), isDown)
      yield* until(statesOf(strict), isDown)
      const allowed = yield* route(query(read))
      const refused = yield* outcome(strict.router.client.unsafe<object>(read))
      yield* Effect.all([replica.start, other.start], { concurrency: 2 })
      return [allowed, refused]
    })
  ),
  routed("a write to a primary that is down fails, and works when it is back", (given) =>
    Effect.gen(function* () {
      const { primary, query } = given
      yield* isUp(given)
      yield* primary.stop
      // How it is found out is chance.
      const writing = yield* Effect.map(Effect.flip(query(add("a"))), RouterError.outcomeOf)
      const reading = yield* outcome(fresh(query(read)))
      yield* primary.start
      yield* isUp(given)
      return [writing, reading, yield* outcome(query(add("b"))), yield* query(all)]
    })
  ),
  routed("a primary that is read-only by default refuses writes, and nothing else", (given) =>
    Effect.gen(function* () {
      const { primary, query, use } = given
      yield* isUp(given)
      yield* primary.setReadOnly(true)
      yield* Effect.addFinalizer(() => primary.setReadOnly(false))
      const refused = yield* outcome(query(add("a")))
      const session = yield* outcome(use(DbRouter.session(query(add("b")))))
      const reading = yield* outcome(query(read))
      yield* primary.setReadOnly(false)
      const again = until(outcome(query(add("c"))), (one) => JSON.stringify(one).includes("done"))
      yield* again
      return [refused, session, reading, yield* query(all)]
    })
  ),
  scenario("a router with a wrong password, or a database that there is not, is not made", (site) =>
    Effect.all([
      outcome(routerOver(site, { engine: { database: "none" } })),
      outcome(routerOver(site, { engine: { username: "none" } }))
    ])
  ),
  routed(
    "a commit that waits for a standby is answered when the standby has it",
    ({ other, primary, query, replica, setSynchronous, use }) =>
      Effect.gen(function* () {
        yield* setSynchronous(1)
        yield* Effect.addFinalizer(() => setSynchronous(0))
        yield* DbRouter.primary(query("SELECT 1"))
        yield* Effect.all([replica.freeze, other.freeze])
        yield* Effect.addFinalizer(() => Effect.all([replica.thaw, other.thaw], { discard: true }))
        const watcher = yield* open(primary)
        const waits = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'IPC' AND usename = 'app'"
        const fiber = yield* Effect.fork(outcome(use(DbRouter.session(query(add("a"))))))
        yield* until(watcher.values(waits), (found) => found.length === 1)
        const unseen = yield* watcher.values("SELECT count(*) FROM entry")
        yield* Effect.all([replica.thaw, other.thaw])
        return [unseen, yield* Fiber.join(fiber), yield* DbRouter.primary(query(all))]
      })
  ),
  routed("what a statement would be, and where it would run, is told without running it", ({ router }) =>
    Effect.forEach(
      [
        "SELECT 1",
        "SELECT now()",
        "SELECT count(*) FROM register",
        "SELECT pg_sleep(1)",
        "SELECT nextval('s')",
        "SELECT lower('A'), generate_series(1, 3)",
        "SELECT * FROM pg_stat_activity",
        "WITH a AS (DELETE FROM entry RETURNING op) SELECT op FROM a",
        "CREATE TABLE a (id int4)",
        "EXPLAIN SELECT 1",
        "EXPLAIN ANALYZE DELETE FROM entry",
        "SELECT set_config('app.mark', 'a', false)",
        "SELECT pg_advisory_lock(1)",
        "LISTEN news",
        "nonsense"
      ],
      (sql) =>
        Effect.map(outcome(router.explain(sql)), (one) =>
          JSON.stringify(one).replace(/"engine":"n[23]"/, '"engine":"a replica"')
        )
    )
  ),
  routed("a server that is drained gets nothing new until it is put back", ({ query, router }) =>
    Effect.gen(function* () {
      yield* Effect.all([router.drain("n2"), router.drain("n3")])
      const drained = yield* route(fresh(query(read)))
      const states = yield* Effect.map(router.status, (all) => all.map(({ name, state }) => [name, state]))
      const inside = yield* route(query(read))
      yield* router.undrain("n2")
      yield* DbRouter.reset
      const back = yield* route(query(read))
      return [drained.value, states, inside, back, yield* outcome(router.drain("none"))]
    })
  ),
  routed("sessions of their own, and statements outside of all, commit by themselves", ({ query, use }) =>
    Effect.gen(function* () {
      yield* outcome(
        use(
          DbRouter.session(
            Effect.all([
              query(add("a")),
              DbRouter.newSession(query(add("b"))),
              DbRouter.detached(query(add("c"))),
              DbRouter.session(query(add("d"))),
              Effect.fail("no")
            ])
          )
        )
      )
      return yield* query(all)
    })
  ),
  routed("a COMMIT or a ROLLBACK that is sent as text ends the session, which is told", ({ query, use }) =>
    Effect.gen(function* () {
      const committed = yield* outcome(
        use(DbRouter.session(Effect.all([query(add("a")), query("COMMIT"), query(add("b"))])))
      )
      const rolled = yield* outcome(use(DbRouter.session(Effect.all([query(add("c")), query("ROLLBACK")]))))
      return [committed, rolled, yield* query("SELECT op FROM entry WHERE op <> 'a'")]
    })
  ),
  routed("a stream of notifications goes on, or fails, when the primary restarts", (given) =>
    Effect.gen(function* () {
      const { primary, router } = given
      const { client } = router
      let heard: Array<string> = []
      const listening = Stream.runForEach(client.listen("news"), (payload) => Effect.sync(() => heard.push(payload)))
      // A stream that fails is begun again, as a program would.
      yield* Effect.forkScoped(Effect.forever(Effect.zipRight(Effect.ignore(listening), Effect.sleep("20 millis"))))
      const told = (payload: string) =>
        until(
          Effect.zipRight(
            Effect.ignore(client.notify("news", payload)),
            Effect.sync(() => heard.includes(payload))
          ),
          (is) => is
        )
      yield* told("before")
      yield* primary.stop
      yield* primary.start
      heard = []
      yield* told("after")
      return [...new Set(heard)]
    })
  ),
  lastRouted("writes follow a promotion", (given) =>
    Effect.gen(function* () {
      const { other, primary, query, replica } = given
      yield* isUp(given)
      yield* query(add("a"))
      yield* given.settled
      yield* primary.kill
      yield* replica.promote
      yield* Effect.fork(other.rejoin(replica))
      const wrote = yield* until(outcome(query(add("b"))), (one) => JSON.stringify(one).includes("done"))
      const states = yield* until(statesOf(given), (states) =>
        states.some(({ name, role }) => name === "n2" && role === "primary")
      )
      const session = yield* outcome(given.use(DbRouter.session(query(add("c")))))
      return [
        wrote,
        states.find(({ name }) => name === "n2"),
        session,
        yield* query("SELECT count(*) FROM entry WHERE op <> 'b'")
      ]
    })
  )
]
