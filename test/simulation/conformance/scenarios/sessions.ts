/** What a session of a server keeps, is told, and ends with. */
import { Effect } from "effect"
import { Client } from "pg"
import type { Probe } from "../Probe.js"
import { query } from "../Probe.js"
import { maxConnections, type Node, open, type Scenario, type Site, scenario, until, untilItWaits } from "../Site.js"

const each = (probe: Probe, ...sqls: ReadonlyArray<string>) => Effect.forEach(sqls, probe.simple)

/** Two sessions of the primary. */
const two = (title: string, run: (one: Probe, other: Probe, site: Site) => ReturnType<Scenario["run"]>): Scenario =>
  scenario(title, (site) =>
    Effect.flatMap(Effect.all([open(site.primary), open(site.primary)]), ([one, other]) => run(one, other, site))
  )

/** What an attempt to connect fails with. */
export const refusal = (error: unknown): unknown => {
  if (typeof error !== "object" || error === null) return error
  const { code, message, routine, severity } = error as Readonly<Record<string, unknown>>
  return routine === undefined ? { code } : { code, message, routine, severity }
}

/** What comes of connecting: what the server says of itself, or the error. */
export const connecting = (node: Node, config = {}) =>
  Effect.scoped(open(node, config)).pipe(
    Effect.map((probe) => probe.statuses.get("in_hot_standby")),
    Effect.catchAll((error) => Effect.succeed(refusal(error)))
  )

const sendCancel = ({ address }: Node, pid: number, key: number) =>
  Effect.async<void>((resume) => {
    const { connection } = new Client(address as never) as unknown as {
      readonly connection: {
        on(event: string, run: () => void): void
        connect(port: number, host: string): void
        cancel(pid: number, key: number): void
      }
    }
    connection.on("connect", () => connection.cancel(pid, key))
    connection.on("error", () => {})
    connection.on("end", () => resume(Effect.void))
    connection.connect(address.port, address.host)
  })

/** Starts something that takes long, and goes on when it runs. */
const begin = (node: Node, probe: Probe, sql: string) =>
  Effect.zipRight(
    Effect.sync(() => probe.send(query(sql))),
    untilItWaits(node, probe, "Timeout")
  )

export const sessions: ReadonlyArray<Scenario> = [
  two("a cancel request ends the statement that runs, and the session goes on", (one, _, { primary }) =>
    Effect.gen(function* () {
      yield* begin(primary, one, "SELECT pg_sleep(20)")
      yield* sendCancel(primary, one.pid, one.key)
      return [yield* one.answer, yield* one.simple("SELECT 1")]
    })
  ),
  two("a cancel request fails the transaction that its statement is in", (one, _, { primary }) =>
    Effect.gen(function* () {
      yield* one.simple("BEGIN")
      yield* begin(primary, one, "SELECT pg_sleep(20)")
      yield* sendCancel(primary, one.pid, one.key)
      return [yield* one.answer, yield* one.simple("COMMIT")]
    })
  ),
  two("a cancel request to an idle session, or with another key, does nothing", (one, other, { primary }) =>
    Effect.gen(function* () {
      yield* sendCancel(primary, one.pid, one.key)
      const idle = yield* one.simple("SELECT 1")
      yield* begin(primary, one, "SELECT pg_sleep(0.5)")
      yield* sendCancel(primary, one.pid, one.key ^ 1)
      yield* sendCancel(primary, other.pid, one.key)
      return [idle, yield* one.answer]
    })
  ),
  two("pg_cancel_backend cancels a statement, and pg_terminate_backend ends a session", (one, other, { primary }) =>
    Effect.gen(function* () {
      yield* begin(primary, one, "SELECT pg_sleep(20)")
      const told = yield* other.simple(`SELECT pg_cancel_backend(${one.pid})`)
      const canceled = yield* one.answer
      const idle = yield* other.values(`SELECT pg_cancel_backend(${one.pid})`)
      yield* begin(primary, one, "SELECT pg_sleep(20)")
      const ended = yield* other.values(`SELECT pg_terminate_backend(${one.pid})`)
      return [told, canceled, idle, ended, yield* one.readTo("closed")]
    })
  ),
  two("a session that is terminated while it is idle is told before it is closed", (one, other) =>
    Effect.gen(function* () {
      yield* one.simple("BEGIN")
      yield* one.simple("INSERT INTO entry (op, flow) VALUES ('a', 'f')")
      yield* other.simple(`SELECT pg_terminate_backend(${one.pid})`)
      const told = yield* one.readTo("closed")
      return [told, yield* until(other.values("SELECT count(*) FROM entry"), () => true)]
    })
  ),
  two("a signal to a session that there is not is a warning", (one) =>
    Effect.all([
      one.simple("SELECT pg_cancel_backend(999999999)"),
      one.simple("SELECT pg_terminate_backend(999999999)")
    ])
  ),
  two("a notification arrives at every session that listens, its own too", (one, other) =>
    Effect.gen(function* () {
      const listening = [yield* one.simple("LISTEN news"), yield* other.simple("LISTEN news")]
      const own = yield* one.simple("NOTIFY news, 'a'")
      const others = yield* other.read(1)
      const asked = yield* other.simple("SELECT pg_notify('news', 'b')")
      return [listening, own, others, asked, yield* one.read(1)]
    })
  ),
  two("notifications of a transaction are sent when it commits, each once, and none when it rolls back", (one, other) =>
    Effect.gen(function* () {
      yield* other.simple("LISTEN news")
      yield* each(one, "BEGIN", "NOTIFY news, 'a'", "NOTIFY news, 'a'", "NOTIFY news, 'b'", "NOTIFY none, 'x'")
      const before = yield* other.simple("SELECT 1")
      yield* one.simple("COMMIT")
      const after = yield* other.read(2)
      yield* each(one, "BEGIN", "NOTIFY news, 'c'", "ROLLBACK", "NOTIFY news")
      return [before, after, yield* other.read(1)]
    })
  ),
  two("a session in a transaction gets its notifications when the transaction has ended", (one, other) =>
    Effect.gen(function* () {
      yield* each(other, "LISTEN news", "BEGIN", "SELECT 1")
      yield* one.simple("NOTIFY news, 'a'")
      return [yield* other.simple("SELECT 2"), yield* other.simple("COMMIT")]
    })
  ),
  two("LISTEN holds from its commit on, and until UNLISTEN", (one, other) =>
    Effect.gen(function* () {
      const rolledBack = yield* each(other, "BEGIN", "LISTEN news", "ROLLBACK")
      yield* one.simple("NOTIFY news, 'a'")
      const committed = yield* each(other, "BEGIN", "LISTEN news", "COMMIT")
      yield* one.simple("NOTIFY news, 'b'")
      const first = yield* other.read(1)
      yield* other.simple("UNLISTEN news")
      yield* one.simple("NOTIFY news, 'c'")
      yield* each(other, "LISTEN a", "LISTEN b", "UNLISTEN *")
      yield* each(one, "NOTIFY a", "NOTIFY b")
      const none = yield* other.simple("SELECT 1")
      yield* other.simple("LISTEN news")
      const all = yield* other.simple("DISCARD ALL")
      yield* one.simple("NOTIFY news, 'd'")
      return [rolledBack, committed, first, none, all, yield* other.simple("SELECT 1")]
    })
  ),
  two("a setting is the session's, or its transaction's with SET LOCAL", (one) =>
    each(
      one,
      "SHOW statement_timeout",
      "SET statement_timeout = '5s'",
      "SHOW statement_timeout",
      "BEGIN",
      "SET LOCAL lock_timeout = 1000",
      "SHOW lock_timeout",
      "SET statement_timeout = 7000",
      "ROLLBACK",
      "SHOW statement_timeout",
      "SHOW lock_timeout",
      "RESET statement_timeout",
      "SHOW statement_timeout",
      "SET LOCAL lock_timeout = 1000",
      "SHOW lock_timeout"
    )
  ),
  two("a custom setting is NULL until it is set, and empty afterwards", (one) =>
    each(
      one,
      "SELECT current_setting('app.tenant', true) AS tenant",
      "SELECT current_setting('app.tenant') AS tenant",
      "SHOW app.tenant",
      "BEGIN",
      "SELECT set_config('app.tenant', 'a', true) AS set",
      "SELECT current_setting('app.tenant', true) AS tenant",
      "COMMIT",
      "SELECT current_setting('app.tenant', true) AS tenant",
      "SELECT nullif(current_setting('app.tenant', true), '') AS tenant",
      "SELECT set_config('app.tenant', 'b', false) AS set",
      "SHOW app.tenant",
      "RESET app.tenant",
      "SHOW app.tenant",
      "SET app.mark TO 'm'",
      "DISCARD ALL",
      "SHOW app.mark",
      "SELECT set_config('app.tenant', NULL, false) AS set"
    )
  ),
  two("a custom setting of a transaction that rolls back", (one) =>
    each(
      one,
      "BEGIN",
      "SET app.first = 'a'",
      "ROLLBACK",
      "SELECT current_setting('app.first', true) AS first",
      "BEGIN",
      "SELECT set_config('app.second', 'a', true) AS second",
      "ROLLBACK",
      "SELECT current_setting('app.second', true) AS second"
    )
  ),
  two("a savepoint that is rolled back takes its settings with it", (one) =>
    each(
      one,
      "BEGIN",
      "SET LOCAL app.mark = 'a'",
      "SAVEPOINT s",
      "SET LOCAL app.mark = 'b'",
      "SHOW app.mark",
      "ROLLBACK TO s",
      "SHOW app.mark",
      "SET LOCAL app.mark = 'c'",
      "RELEASE s",
      "SHOW app.mark",
      "COMMIT",
      "SHOW app.mark"
    )
  ),
  two("settings that there are not, and values that a setting does not take, are refused", (one) =>
    each(
      one,
      "SET none = 1",
      "SHOW none",
      "SELECT set_config('none', 'a', false)",
      "SELECT current_setting('none')",
      "SELECT current_setting('none', true) AS none",
      "SET statement_timeout = 'long'",
      "SET default_transaction_read_only = 'maybe'",
      "SET default_transaction_isolation = 'none'"
    )
  ),
  scenario("what a client says at the start are settings of its session", (site) =>
    Effect.gen(function* () {
      const probe = yield* open(site.primary, {
        application_name: "shop",
        options: "-c default_transaction_read_only=on -c app.tenant=a --statement_timeout=5s"
      })
      return yield* each(
        probe,
        "SHOW application_name",
        "SHOW default_transaction_read_only",
        "SHOW app.tenant",
        "SHOW statement_timeout",
        "INSERT INTO entry (op, flow) VALUES ('a', 'f')",
        "SET app.tenant = 'b'",
        "SET application_name = 'other'",
        "DISCARD ALL",
        "SHOW app.tenant",
        "SHOW application_name"
      )
    })
  ),
  scenario(
    "a wrong password, a role that there is not, and a database that there is not are refused",
    ({ primary, replica }) =>
      Effect.all([
        connecting(primary, { password: "wrong" }),
        connecting(primary, { user: "none" }),
        connecting(primary, { database: "none" }),
        connecting(replica, { password: "wrong" }),
        connecting(replica, { database: "none" }),
        connecting(primary, { options: "-c none=1" }),
        connecting(primary),
        connecting(replica)
      ])
  ),
  scenario("one connection more than max_connections is refused", ({ primary }) =>
    Effect.gen(function* () {
      // Others may go away while it is counted. And all of them have to be gone before anything else connects.
      yield* Effect.addFinalizer(() => until(connecting(primary), (answer) => answer === "off"))
      yield* Effect.forEach(
        Array.from({ length: maxConnections }),
        () => Effect.catchAll(open(primary), () => Effect.void),
        { concurrency: 5 }
      )
      return yield* connecting(primary)
    })
  ),
  two("statement_timeout cancels a statement, whatever it waits for", (one, other) =>
    Effect.gen(function* () {
      const asleep = yield* each(one, "SET statement_timeout = 400", "SELECT pg_sleep(20)")
      yield* each(other, "BEGIN", "UPDATE register SET writes = 7 WHERE id = 1")
      const locked = yield* one.simple("UPDATE register SET writes = 8 WHERE id = 1")
      const extended = yield* one.run("SELECT pg_sleep(20)")
      return [asleep, locked, extended, yield* one.simple("SELECT 1")]
    })
  ),
  two("lock_timeout ends the wait for a row", (one, other) =>
    Effect.gen(function* () {
      yield* each(other, "BEGIN", "UPDATE register SET writes = 7 WHERE id = 1")
      return yield* each(
        one,
        "SET lock_timeout = 200",
        "UPDATE register SET writes = 8 WHERE id = 1",
        "SELECT writes FROM register WHERE id = 1",
        "BEGIN",
        "SELECT id FROM register WHERE id = 1 FOR UPDATE",
        "ROLLBACK"
      )
    })
  ),
  two("a session that is idle in a transaction for too long is ended", (one, other) =>
    Effect.gen(function* () {
      // All at once: the time runs from the answer on.
      yield* one.simple("SET idle_in_transaction_session_timeout = 200; BEGIN; UPDATE register SET writes = 7")
      const told = yield* one.readTo("closed")
      return [told, yield* other.simple("SELECT writes FROM register ORDER BY id")]
    })
  ),
  two("a session that is idle for too long is ended", (one) =>
    Effect.gen(function* () {
      yield* one.simple("SET idle_session_timeout = 200")
      return yield* one.readTo("closed")
    })
  ),
  two("a client that goes away rolls back what it has begun", (one, other) =>
    Effect.gen(function* () {
      yield* each(one, "BEGIN", "UPDATE register SET writes = 7 WHERE id = 1")
      yield* Effect.sync(() => one.close())
      return yield* each(
        other,
        "UPDATE register SET writes = writes + 1 WHERE id = 1",
        "SELECT writes FROM register WHERE id = 1"
      )
    })
  )
]
