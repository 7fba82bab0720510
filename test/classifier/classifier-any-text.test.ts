import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { SqlClassifier } from "effect-db-router"
import fc from "fast-check"
import { loadModule, parseSync } from "libpg-query"
import { corpus } from "../support/corpus.js"

const parses = (sql: string) => {
  if (sql.includes("\u0000")) return false
  try {
    return (parseSync(sql).stmts ?? []).length > 0
  } catch {
    return false
  }
}

const check = (texts: fc.Arbitrary<string>, numRuns: number) =>
  Effect.gen(function* () {
    yield* Effect.promise(loadModule)
    const { classify } = yield* SqlClassifier.make
    fc.assert(
      fc.property(texts, (sql) => {
        const { kind, reason } = classify(sql)
        assert.isNotEmpty(reason)
        if (kind === "read") assert.isTrue(parses(sql), sql)
      }),
      { numRuns }
    )
  })

const bytes = fc.uint8Array({ maxLength: 200 })

const statements = fc.constantFrom(...corpus.map((entry) => entry.sql))

const words = [
  ...new Set(corpus.flatMap(({ sql }) => sql.split(/(\s+|[(),;'"$])/))),
  ...["\u0000", "\ud800", "\udc00", "\ufeff", "\\", "/*", "*/", "--", "E'", "$$", "U&'", "\u{1F600}", "é"]
].filter((word) => word !== "")

const soup = fc.array(fc.constantFrom(...words), { maxLength: 40 }).map((parts) => parts.join(" "))

/** A statement of the corpus with a part taken out, doubled, or put in from another. */
const mutated = fc.tuple(statements, statements, fc.nat(), fc.nat(), fc.nat(3)).map(([a, b, i, j, how]) => {
  const [from, to] = [i % (a.length + 1), j % (a.length + 1)].sort((x, y) => x - y) as [number, number]
  if (how === 0) return a.slice(0, from) + a.slice(to)
  if (how === 1) return a.slice(0, to) + a.slice(from)
  if (how === 2) return a.slice(0, from) + b + a.slice(to)
  return a.slice(0, from) + b.slice(0, j % (b.length + 1)) + a.slice(from)
})

/** Queries with a hole for another query, each of which is a read if what is in the hole is one. */
const frames: ReadonlyArray<(query: string) => string> = [
  (q) => `select (${q})`,
  (q) => `select * from (${q}) as x`,
  (q) => `select * from users, lateral (${q}) as x`,
  (q) => `select * from users u left join (${q}) as x on true`,
  (q) => `with x as (${q}) select * from x`,
  (q) => `with recursive x as (select 1 union all (${q})) select * from x`,
  (q) => `with x as materialized (${q}) values (1)`,
  (q) => `select * from users where id in (${q})`,
  (q) => `select * from users where exists (${q}) or not active`,
  (q) => `select * from users where id > all (${q})`,
  (q) => `select 1 union all (${q})`,
  (q) => `(${q}) except select 1 order by 1 limit 1`,
  (q) => `values (1), ((${q}))`,
  (q) => `select array(${q})`,
  (q) => `select count(*) filter (where (${q}) is null) from users`,
  (q) => `select sum(id) over (partition by (${q})) from users`,
  (q) => `select case when true then coalesce((${q})::text, 'a') end`,
  (q) => `select user_id from orders group by user_id having max(total) > (${q}) order by (${q})`,
  (q) => `select json_object('a' value (${q}))`,
  (q) => `select row((${q}), array[(${q})]) limit (${q})`,
  (q) => `select 1; ${q}`,
  (q) => `/* ${"select"} */ ${q} -- end\n;`
]

const nested = fc
  .array(fc.constantFrom(...frames), { maxLength: 5 })
  .map(
    (chosen) => (query: string) =>
      chosen.reduce((inner, frame, depth) => (depth > 0 && inner.includes(";") ? inner : frame(inner)), query)
  )

const safe = [
  "select 1",
  "select id from users",
  "values (now())",
  "with y as (select 1) select * from y",
  "table users"
]

const unsafe = [
  "select nextval('s')",
  "with y as (delete from users returning id) select id from y",
  "with y as (select 1), z as (insert into users default values returning id) select * from y",
  "select id from users for no key update",
  "select unknown_function(1)",
  "select id from users where setval('s', 1) > id"
]

const local = [
  "select pg_backend_pid()",
  "select pid from pg_locks",
  "select lastval()",
  "select pg_try_advisory_lock(1)"
]

const frameTest = (queries: ReadonlyArray<string>, kind: SqlClassifier.StatementKind) =>
  Effect.map(SqlClassifier.make, ({ classify }) =>
    fc.assert(
      fc.property(nested, fc.constantFrom(...queries), (frame, query) => {
        assert.strictEqual(classify(frame(query)).kind, kind, frame(query))
      }),
      { numRuns: 3000 }
    )
  )

describe("the classification of any text", () => {
  it.effect("of characters never throws, and is never a read unless it parses", () =>
    check(fc.oneof(fc.string({ unit: "binary" }), fc.string({ unit: "grapheme" }), fc.string16bits()), 3000)
  )

  it.effect("of bytes never throws, and is never a read unless it parses", () =>
    check(
      fc.oneof(
        bytes.map((b) => Buffer.from(b).toString("utf8")),
        bytes.map((b) => Buffer.from(b).toString("latin1"))
      ),
      3000
    )
  )

  it.effect("of the words of SQL never throws, and is never a read unless it parses", () => check(soup, 3000))

  it.effect("that is nearly a statement never throws, and is never a read unless it parses", () => check(mutated, 5000))

  it.effect("is a write wherever a write hides in it", () => frameTest(unsafe, "write"))

  it.effect("is a session statement wherever one server's answer hides in it", () => frameTest(local, "session"))

  it.effect("is a read when nothing hides in it", () => frameTest(safe, "read"))
})
