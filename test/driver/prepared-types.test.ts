import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Chunk, Effect, Layer, Redacted, Stream } from "effect"
import { DbRouter } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as Pg from "pg"
import * as engines from "../support/engine.js"
import * as RouterTest from "../support/router.js"

/** A type that a column has, one that it gets, what it holds before, and values that may mean something else afterwards. */
type Change = readonly [before: string, after: string, held: unknown, probes: ReadonlyArray<unknown>]

const long = "x".repeat(70)
const changes: ReadonlyArray<Change> = [
  ["timestamp", "timestamptz", "2020-01-01 00:00:00", ["2026-01-01 12:00:00-05", new Date(0), null]],
  ["timestamptz", "timestamp", "2020-01-01 00:00:00+00", ["2026-01-01 12:00:00-05", new Date(0)]],
  ["timestamp", "date", "2020-01-01", ["2026-01-01 23:59:59", "2026-01-01"]],
  ["date", "timestamp", "2020-01-01", ["2026-01-01 12:34:56"]],
  ["date", "timestamptz", "2020-01-01", ["2026-01-01 12:34:56-05"]],
  ["timestamp(0)", "timestamp(6)", "2020-01-01 00:00:00", ["2026-01-01 12:00:00.123456"]],
  ["timestamp", "text", "2020-01-01", ["2026-1-1 1:02"]],
  ["date", "text", "2020-01-01", ["2026-1-2"]],
  ["time", "timetz", "10:00", ["17:00:00-05"]],
  ["timetz", "time", "10:00+00", ["17:00:00-05"]],
  ["time", "interval", "10:00", ["25:00:00", "17:00:00"]],
  ["time", "text", "10:00", ["9:5"]],
  ["interval", "text", "1 day", ["24 hours", "1 mon"]],
  ["real", "double precision", 1, [1234567.891, 0.1, 16777217]],
  ["double precision", "real", 1, [1234567.891, 3]],
  ["real", "numeric", 1, ["1234567.891", 1234567]],
  ["double precision", "numeric", 1, ["123456789.123456789012", "1000000000000001", 0.1]],
  ["double precision", "text", 1, ["1.50", "1e3", 100000]],
  ["numeric", "integer", 1, ["1.5", "2", 2.5]],
  ["numeric", "double precision", 1, ["0.1", "12345678901234567890"]],
  ["numeric", "text", 1, ["01.50", "1e2"]],
  ["numeric(10,2)", "numeric(10,4)", 1, ["1.2345"]],
  ["integer", "bigint", 1, [3_000_000_000, "3000000000", 7]],
  ["integer", "numeric", 1, ["1.5", 7]],
  ["integer", "double precision", 1, [1.5, 7]],
  ["integer", "text", 1, ["007", " 7", "0x1F", "1_000", 7]],
  ["integer", "varchar(3)", 1, [12, "1234", "01"]],
  ["smallint", "integer", 1, [40_000, 7]],
  ["smallint", "text", 1, ["07", 7]],
  ["bigint", "numeric", 1, ["9223372036854775808", "1.5"]],
  ["bigint", "integer", 1, [7, "00000000007"]],
  ["bigint", "text", 1, ["+7", "9007199254740993"]],
  ["boolean", "text", true, ["t", "yes", true, false]],
  ["uuid", "text", "00000000-0000-0000-0000-00000000000a", ["{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}"]],
  ["name", "text", "a", [long, "short"]],
  ["text", "name", "a", [long, "short"]],
  ["varchar(5)", "varchar(50)", "a", ["a longer value"]],
  ["varchar(5)", "text", "a", ["a longer value "]],
  ["char(5)", "text", "a", ["ab  ", "ab", "a longer value"]],
  ["text", "char(5)", "a", ["ab  ", "ab"]],
  ["text", "citext", "a", ["A", "a"]],
  ["citext", "text", "a", ["A", "a"]],
  ["varchar(9)", "citext", "a", ["A"]],
  ["json", "jsonb", "{}", ['{"b": 1,  "a": 2, "b": 3}', { a: 1 }]],
  ["jsonb", "json", "{}", ['{"b": 1,  "a": 2, "b": 3}', { a: 1 }]],
  ["jsonb", "text", "{}", ['{"b":1}', { a: 1 }]],
  ["bytea", "text", Buffer.from("a"), [Buffer.from("abc"), "\\x6162"]],
  ["inet", "cidr", "10.0.0.0", ["10.0.0.1/24", "10.0.0.0/24"]],
  ["inet", "text", "10.0.0.1", ["10.0.0.1/32", "::0001"]],
  ["integer[]", "bigint[]", [1], [[3_000_000_000], [1, 2]]],
  ["integer[]", "text", [1], [[1, 2]]],
  ["timestamp[]", "timestamptz[]", ["2020-01-01"], [["2026-01-01 12:00:00-05"]]],
  ["mood", "text", "sad", ["sad", "ok"]],
  ["text", "mood", "sad", ["sad", "none"]],
  ["short_text", "text", "a", [long]]
]

/** Through the driver, each text parsed for its run. */
const unprepared = (url: string) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(async () => {
        const client = new Pg.Client(url)
        await client.connect()
        return client
      }),
      (client) => Effect.promise(() => client.end())
    ),
    (client) => (text: string, values: ReadonlyArray<unknown>) =>
      Effect.tryPromise({
        try: () => client.query<object>(text, [...values]).then(({ rows }) => rows),
        catch: (error) => (error as { code: string }).code
      })
  )

const outcome = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.match(effect, {
    onFailure: (error) => (typeof error === "string" ? error : engines.stateOf(error)),
    onSuccess: (rows) => JSON.stringify(rows)
  })

type Run = (
  sql: SqlClient.SqlClient,
  text: string,
  values: ReadonlyArray<unknown>
) => Effect.Effect<unknown, unknown, DbRouter.DbRouter>

const plain: Run = (sql, text, values) => sql.unsafe(text, [...values])
const forms: Record<string, Run> = {
  "on its own": plain,
  "in a session": (sql, text, values) => DbRouter.session(plain(sql, text, values)),
  "in a transaction": (sql, text, values) => sql.withTransaction(plain(sql, text, values)),
  "in a transaction with settings": (sql, text, values) =>
    DbRouter.session(plain(sql, text, values), { settings: { "app.tenant": "a", search_path: "public" } }),
  "as a stream": (sql, text, values) =>
    Effect.map(Stream.runCollect(sql.unsafe(text, [...values]).stream), Chunk.toArray),
  "on a reserved connection": (sql, text, values) =>
    Effect.scoped(Effect.flatMap(sql.reserve, (on) => on.execute(text, values, undefined))),
  "three at once": (sql, text, values) =>
    Effect.map(
      Effect.all(
        Array.from({ length: 3 }, () => plain(sql, text, values)),
        { concurrency: "unbounded" }
      ),
      ([first]) => first
    )
}

const cluster = PgCluster.layer({ replicas: 1, settings: { timezone: "UTC" } })
const services = Layer.provideMerge(RouterTest.router({ engine: { maxConnections: 2 } }), cluster)

layer(services, { excludeTestServices: true, timeout: "4 minutes" })("a column whose type changes elsewhere", (it) => {
  it.scoped(
    `${changes.length} changes: every statement, in every form, does what one that is parsed for its run does`,
    () =>
      Effect.gen(function* () {
        const { awaitReplayed, primary, replicas } = yield* PgCluster.PgCluster
        const onPrimary = yield* unprepared(Redacted.value(primary.url))
        const onReplica = yield* unprepared(Redacted.value(replicas[0]!.url))
        const sql = yield* SqlClient.SqlClient
        yield* primary.query(
          "create extension citext; create type mood as enum ('sad', 'ok'); create domain short_text as varchar(63)"
        )
        const names = Object.keys(forms)
        const textsOf = (table: string) => ({
          insert: `insert into ${table} (id, c) values ($1, $2)`,
          update: `update ${table} set c = $2 where id = $1`,
          equal: `select count(*)::int as n from ${table} where c = $1`,
          less: `select count(*)::int as n from ${table} where c <= $1`
        })
        const tableOf = (i: number, form: number) => `changing_${i}_${form}`
        const tablesOf = (i: number) => [`control_${i}`, ...names.map((_, at) => tableOf(i, at))]
        const everywhere = (i: number, text: (table: string) => string) =>
          primary.query(tablesOf(i).map(text).join(";"))
        for (const [i, [before]] of changes.entries()) {
          yield* everywhere(i, (table) => `create table ${table} (id int, c ${before})`)
        }
        yield* awaitReplayed
        const wrong: Array<string> = []
        const judge = (change: Change, form: string, what: string, value: unknown, got: unknown, should: unknown) => {
          if (got === should) return
          wrong.push(`${change[0]} -> ${change[1]}, ${form}, ${what}, ${String(value)}: ${got}, not ${should}`)
        }
        for (const [i, change] of changes.entries()) {
          const [, after, held, probes] = change
          yield* Effect.forEach(
            names,
            (form, at) =>
              Effect.gen(function* () {
                const { equal, insert, less, update } = textsOf(tableOf(i, at))
                const run = (text: string, values: ReadonlyArray<unknown>) => outcome(forms[form]!(sql, text, values))
                for (let n = 0; n < 2; n++) {
                  yield* run(insert, [n, held])
                  yield* run(update, [n, held])
                  for (const read of [equal, less]) {
                    yield* DbRouter.replica(run(read, [held]))
                    yield* DbRouter.primary(run(read, [held]))
                  }
                }
              }),
            { concurrency: 4 }
          )
          yield* everywhere(
            i,
            (table) => `truncate ${table}; alter table ${table} alter c type ${after} using null::text::${after}`
          )
          const control = textsOf(`control_${i}`)
          for (const [n, probe] of probes.entries()) {
            for (const what of ["insert", "update"] as const) {
              const should = yield* outcome(onPrimary(control[what], [n, probe]))
              for (const [at, form] of names.entries()) {
                const got = yield* outcome(forms[form]!(sql, textsOf(tableOf(i, at))[what], [n, probe]))
                judge(change, form, what, probe, got, should)
              }
            }
            const stored = (table: string) =>
              outcome(onPrimary(`select distinct c::text from ${table} where id = $1`, [n]))
            const should = yield* stored(`control_${i}`)
            for (const [at, form] of names.entries()) {
              judge(change, form, "what is stored", probe, yield* stored(tableOf(i, at)), should)
            }
          }
          yield* awaitReplayed
          for (const [at, form] of names.entries()) {
            const texts = textsOf(tableOf(i, at))
            for (const what of ["equal", "less"] as const) {
              for (const probe of probes) {
                for (const [where, place, control] of [
                  ["the replica", DbRouter.replica, onReplica],
                  ["the primary", DbRouter.primary, onPrimary]
                ] as const) {
                  const got = yield* outcome(place(forms[form]!(sql, texts[what], [probe])))
                  judge(change, form, `${what} on ${where}`, probe, got, yield* outcome(control(texts[what], [probe])))
                }
              }
            }
          }
        }
        assert.deepStrictEqual(wrong, [])
      }),
    240_000
  )
})
