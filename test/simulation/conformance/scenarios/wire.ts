/** Messages of the protocol, one for one. */
import { Effect } from "effect"
import type { Probe } from "../Probe.js"
import { bind, close, copyData, copyDone, copyFail, describe, execute, flush, parse, query, sync } from "../Probe.js"
import { open, type Run, type Scenario, type Site } from "../Site.js"

const onPrimary = (title: string, run: (probe: Probe, site: Site) => ReturnType<Run>): Scenario => ({
  title,
  isLast: false,
  run: (site) => Effect.flatMap(open(site.primary), (probe) => run(probe, site))
})

/** The answers to several messages, each asked when the one before is answered. */
const each = (probe: Probe, ...sqls: ReadonlyArray<string>) => Effect.forEach(sqls, probe.simple)

export const wire: ReadonlyArray<Scenario> = [
  onPrimary("a simple query describes its rows, and is ready afterwards", (probe) =>
    probe.simple("SELECT id, value, writes FROM register ORDER BY id")
  ),
  onPrimary("a text without a statement has an answer of its own", (probe) =>
    Effect.all([probe.simple(""), probe.simple(" ; "), probe.run("")])
  ),
  onPrimary("several statements of one text have an answer each, and are one transaction", (probe) =>
    each(
      probe,
      "INSERT INTO entry (op, flow) VALUES ('a', 'f'); SELECT 1 AS one; INSERT INTO entry (op, flow) VALUES ('b', 'f')",
      "INSERT INTO entry (op, flow) VALUES ('c', 'f'); SELECT 1 / 0; INSERT INTO entry (op, flow) VALUES ('d', 'f')",
      "SELECT op FROM entry ORDER BY op"
    )
  ),
  onPrimary("a syntax error in the second statement of a text runs none", (probe) =>
    each(probe, "INSERT INTO entry (op, flow) VALUES ('a', 'f'); SELEC 1", "SELECT count(*) FROM entry")
  ),
  onPrimary("a text with BEGIN in its middle goes on in a transaction", (probe) =>
    each(
      probe,
      "INSERT INTO entry (op, flow) VALUES ('a', 'f'); BEGIN; INSERT INTO entry (op, flow) VALUES ('b', 'f')",
      "ROLLBACK",
      "SELECT count(*) FROM entry"
    )
  ),
  onPrimary("describing a statement tells its parameters and its rows", (probe) =>
    Effect.forEach(
      [
        "SELECT id, value FROM register WHERE id = $1 AND value <> $2",
        "UPDATE register SET value = $1, writes = writes + 1 WHERE id = $2",
        "INSERT INTO entry (op, flow) VALUES ($1, $2)",
        "SELECT $1::text AS op, id FROM register WHERE id = $2",
        "SELECT $1 AS anything",
        "SELECT 1",
        "UPDATE account SET balance = balance + $1 WHERE id = $2 RETURNING balance",
        "SELECT set_config($1, $2, true)",
        "SELECT pg_notify($1, $2)",
        "SELECT n FROM generate_series(1, $1) AS n",
        "SELECT count(*), max(value), sum(writes) FROM register",
        "INSERT INTO register VALUES ($1, $2, 0) ON CONFLICT (id) DO UPDATE SET value = excluded.value",
        "DELETE FROM register WHERE id = ANY ($1)",
        "SELECT id FROM register ORDER BY id LIMIT $1",
        "SELECT coalesce($1, 'x') || $2",
        "BEGIN",
        "SET LOCAL app.tenant = 'a'",
        "SHOW transaction_isolation",
        "LISTEN news"
      ],
      (sql) => probe.ask(parse("", sql), describe("S", ""), sync)
    )
  ),
  onPrimary("describing a portal tells its rows, or that it has none", (probe) =>
    Effect.forEach(["SELECT id FROM register WHERE id = $1", "UPDATE register SET writes = 1 WHERE id = $1"], (sql) =>
      probe.ask(parse("", sql), bind("", "", ["1"]), describe("P", ""), sync)
    )
  ),
  onPrimary("an error in a pipeline skips what follows, up to Sync, and undoes what went before", (probe) =>
    Effect.all([
      probe.ask(
        parse("", "INSERT INTO entry (op, flow) VALUES ('a', 'f')"),
        bind("", ""),
        execute(""),
        parse("", "SELECT 1 / $1::int4"),
        bind("", "", ["0"]),
        execute(""),
        parse("", "INSERT INTO entry (op, flow) VALUES ('b', 'f')"),
        bind("", ""),
        execute(""),
        sync
      ),
      probe.simple("SELECT count(*) FROM entry")
    ])
  ),
  onPrimary("an error in a pipeline with Sync after each statement fails that one alone", (probe) =>
    Effect.gen(function* () {
      const one = (sql: string) => [parse("", sql), bind("", ""), describe("P", ""), execute(""), sync]
      probe.send(
        ...one("INSERT INTO entry (op, flow) VALUES ('a', 'f')"),
        ...one("SELECT 1 / 0"),
        ...one("INSERT INTO entry (op, flow) VALUES ('b', 'f')"),
        ...one("SELECT op FROM entry ORDER BY op")
      )
      return yield* Effect.all([probe.answer, probe.answer, probe.answer, probe.answer])
    })
  ),
  onPrimary("a pipeline in a transaction that fails leaves the transaction failed", (probe) =>
    Effect.gen(function* () {
      const one = (sql: string) => [parse("", sql), bind("", ""), execute(""), sync]
      probe.send(...one("BEGIN"), ...one("SELECT 1 / 0"), ...one("SELECT 2"), ...one("COMMIT"), ...one("SELECT 3"))
      return yield* Effect.all([probe.answer, probe.answer, probe.answer, probe.answer, probe.answer])
    })
  ),
  onPrimary("a portal with a row limit is suspended, goes on, and ends", (probe) =>
    Effect.all([
      probe.ask(
        parse("", "SELECT n FROM generate_series(1, 5) AS n"),
        bind("", ""),
        execute("", 2),
        execute("", 2),
        execute("", 2),
        execute("", 2),
        sync
      ),
      probe.ask(
        parse("", "SELECT n FROM generate_series(1, 4) AS n"),
        bind("", ""),
        execute("", 4),
        execute("", 4),
        sync
      )
    ])
  ),
  onPrimary("a portal lasts as long as its transaction", (probe) =>
    Effect.all([
      probe.simple("BEGIN"),
      probe.ask(parse("", "SELECT n FROM generate_series(1, 3) AS n"), bind("p", ""), execute("p", 1), sync),
      probe.ask(execute("p", 1), sync),
      probe.simple("COMMIT"),
      probe.ask(execute("p", 1), sync),
      probe.ask(parse("", "SELECT 1"), bind("q", ""), sync),
      probe.ask(execute("q"), sync)
    ])
  ),
  onPrimary("a portal of a statement that is no query ends at once, and cannot be run twice", (probe) =>
    Effect.all([
      probe.ask(parse("", "UPDATE register SET writes = 5"), bind("", ""), execute("", 1), execute("", 1), sync),
      probe.simple("SELECT DISTINCT_WRITES FROM (SELECT max(writes) AS DISTINCT_WRITES FROM register) AS r")
    ])
  ),
  onPrimary("a portal's name can be used once in a transaction", (probe) =>
    Effect.all([
      probe.simple("BEGIN"),
      probe.ask(parse("", "SELECT 1"), bind("p", ""), bind("p", ""), sync),
      probe.simple("ROLLBACK"),
      probe.simple("BEGIN"),
      probe.ask(parse("", "SELECT 1"), bind("p", ""), close("P", "p"), bind("p", ""), close("P", "none"), sync),
      probe.simple("COMMIT")
    ])
  ),
  onPrimary("a prepared statement has a name once, and until it is closed", (probe) =>
    Effect.all([
      probe.ask(parse("s", "SELECT $1::int4 AS n"), sync),
      probe.ask(parse("s", "SELECT 2"), sync),
      probe.ask(bind("", "s", ["7"]), execute(""), sync),
      probe.ask(close("S", "s"), close("S", "none"), sync),
      probe.ask(bind("", "s", ["7"]), execute(""), sync),
      probe.ask(describe("S", "s"), sync),
      probe.ask(describe("P", "p"), sync)
    ])
  ),
  onPrimary("DEALLOCATE and DISCARD ALL end prepared statements", (probe) =>
    Effect.all([
      probe.ask(parse("a", "SELECT 1"), parse("b", "SELECT 2"), parse("c", "SELECT 3"), sync),
      probe.simple("DEALLOCATE a"),
      probe.simple("DEALLOCATE a"),
      probe.ask(bind("", "a"), sync),
      probe.simple("DEALLOCATE ALL"),
      probe.ask(bind("", "b"), sync),
      probe.ask(parse("c", "SELECT 4"), sync),
      probe.simple("DISCARD ALL"),
      probe.ask(bind("", "c"), sync)
    ])
  ),
  onPrimary("DISCARD ALL is refused in a transaction", (probe) =>
    each(probe, "BEGIN", "DISCARD ALL", "ROLLBACK", "DISCARD ALL")
  ),
  onPrimary("a wrong number of parameters, and a wrong value of one, are refused when they are bound", (probe) =>
    Effect.all([
      probe.ask(parse("s", "SELECT $1::int4 + $2::int4 AS sum"), sync),
      probe.ask(bind("", "s", ["1"]), execute(""), sync),
      probe.ask(bind("", "s", ["1", "2", "3"]), execute(""), sync),
      probe.ask(bind("", "s", ["1", "x"]), execute(""), sync),
      probe.ask(bind("", "s", ["1", "99999999999"]), execute(""), sync),
      probe.ask(bind("", "s", ["1", null]), execute(""), sync),
      probe.ask(bind("", "s", ["1", " 2 "]), execute(""), sync)
    ])
  ),
  onPrimary("values of each type that the workload sends come back as they were", (probe) =>
    Effect.forEach(
      [
        ["int4", "-7"],
        ["int8", "9007199254740993"],
        ["text", 'it\'s "quoted" \\ , {}'],
        ["text", ""],
        ["bool", "true"],
        ["bool", "f"],
        ["float8", "1.5"],
        ["numeric", "12345.678"],
        ["timestamptz", "2026-11-30T12:34:56.789+01:00"],
        ["text[]", '{a,"b c",NULL}'],
        ["int4[]", "{1,2,3}"],
        ["pg_lsn", "0/16B3748"],
        ["text", null]
      ] as const,
      ([type, value]) => probe.run(`SELECT $1::${type} AS value, $1::${type} IS NULL AS is_null`, value)
    )
  ),
  onPrimary("values that are none of their type are refused", (probe) =>
    Effect.forEach(
      [
        ["int4", "1.5"],
        ["int8", "x"],
        ["bool", "maybe"],
        ["float8", "x"],
        ["numeric", "1x"],
        ["timestamptz", "no time"],
        ["int4[]", "{1,x}"],
        ["text[]", "a"],
        ["pg_lsn", "x"],
        ["int4", "2147483648"]
      ] as const,
      ([type, value]) => probe.run(`SELECT $1::${type} AS value`, value)
    )
  ),
  onPrimary("Flush has the answers sent that there are", (probe) =>
    Effect.gen(function* () {
      probe.send(parse("", "SELECT 1 AS one"), describe("S", ""), flush)
      const described = yield* probe.readTo("row")
      probe.send(bind("", ""), execute(""), flush)
      const executed = yield* probe.readTo("complete")
      return [described, executed, yield* probe.ask(sync)]
    })
  ),
  onPrimary("an error waits for no Flush, and the rest for Sync", (probe) =>
    Effect.gen(function* () {
      probe.send(parse("", "SELECT 1 / 0"), bind("", ""), execute(""))
      const failed = yield* probe.readTo("error")
      probe.send(parse("", "SELECT 2"), flush)
      return [failed, yield* probe.ask(query("SELECT 3"), sync)]
    })
  ),
  onPrimary("the transaction's status is told after each answer", (probe) =>
    each(
      probe,
      "SELECT 1",
      "BEGIN",
      "SELECT 1",
      "SELECT 1 / 0",
      "SELECT 1",
      "ROLLBACK",
      "SELECT 1",
      "START TRANSACTION",
      "COMMIT",
      "BEGIN",
      "SELECT none",
      "COMMIT",
      "END",
      "ABORT"
    )
  ),
  onPrimary("in a failed transaction everything is refused that does not end it", (probe) =>
    Effect.all([
      probe.ask(parse("s", "SELECT 1"), parse("c", "COMMIT"), parse("r", "ROLLBACK"), sync),
      probe.simple("BEGIN; SELECT 1 / 0"),
      probe.simple("SELECT 1"),
      probe.simple("SHOW transaction_isolation"),
      probe.simple("SAVEPOINT a"),
      probe.simple("BEGIN"),
      probe.simple(""),
      probe.ask(parse("", "SELECT 1"), sync),
      probe.ask(bind("", "s"), sync),
      probe.ask(describe("S", "s"), sync),
      probe.ask(parse("", "ROLLBACK"), sync),
      probe.ask(bind("", "c"), execute(""), sync),
      probe.ask(bind("", "r"), execute(""), sync)
    ])
  ),
  onPrimary("COPY from the client takes rows, and is refused where it says so", (probe) =>
    Effect.gen(function* () {
      probe.send(query("COPY entry FROM STDIN"))
      const begun = yield* probe.readTo("copyInResponse")
      const failed = yield* probe.ask(copyFail("no rows"))
      probe.send(query("COPY entry FROM STDIN"))
      yield* probe.readTo("copyInResponse")
      const done = yield* probe.ask(copyData("a\tf\nb\tf\n"), copyDone)
      return [begun, failed, done, yield* probe.simple("SELECT op FROM entry ORDER BY op")]
    })
  ),
  onPrimary("COPY to the client sends rows", (probe) =>
    each(probe, "COPY account TO STDOUT", "COPY (SELECT id FROM register ORDER BY id) TO STDOUT", "COPY none TO STDOUT")
  ),
  onPrimary("COPY by the extended protocol", (probe) =>
    Effect.gen(function* () {
      probe.send(parse("", "COPY entry FROM STDIN"), bind("", ""), describe("P", ""), execute(""), flush)
      const begun = yield* probe.readTo("copyInResponse")
      const failed = yield* probe.ask(copyFail("refused"), sync)
      const out = yield* probe.run("COPY account TO STDOUT")
      return [begun, failed, out]
    })
  ),
  onPrimary("the server tells its settings at the start, and when one of them changes", (probe) =>
    Effect.gen(function* () {
      const statuses = [...probe.statuses].filter(([name]) => name !== "server_version")
      const changes = yield* each(
        probe,
        "SET application_name = 'shop'",
        "SET application_name = 'shop'",
        "SET TimeZone = 'Europe/Berlin'",
        "BEGIN",
        "SET LOCAL application_name = 'local'",
        "ROLLBACK",
        "SET app.tenant = 'a'",
        "SET client_encoding = 'UTF8'",
        "RESET application_name",
        "DISCARD ALL"
      )
      return [statuses, changes]
    })
  )
]
