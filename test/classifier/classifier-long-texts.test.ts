import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { SqlClassifier } from "effect-db-router"
import * as Parser from "../../src/internal/classifier/parser.js"

const repeat = (count: number, text: string) => text.repeat(count)

/** Texts that nest, or go on, as deeply as `n` says. */
const shapes: Readonly<Record<string, (n: number) => string>> = {
  brackets: (n) => `select ${repeat(n, "(")}1${repeat(n, ")")}`,
  minus: (n) => `select ${repeat(n, "- ")}a`,
  not: (n) => `select ${repeat(n, "not ")}a`,
  plus: (n) => `select ${repeat(n, "a+")}a`,
  concat: (n) => `select ${repeat(n, "'a'||")}a`,
  or: (n) => `select 1 where ${repeat(n, "a or ")}a`,
  subqueries: (n) => `${repeat(n, "select (")}select 1${repeat(n, ")")}`,
  derived: (n) => `${repeat(n, "select * from (")}select 1${repeat(n, ") x")}`,
  calls: (n) => `select ${repeat(n, "abs(")}1${repeat(n, ")")}`,
  casts: (n) => `select 1${repeat(n, "::text")}`,
  arrays: (n) => `select array${repeat(n, "[")}1${repeat(n, "]")}`,
  unions: (n) => `select 1${repeat(n, " union select 1")}`,
  joins: (n) => `select * from a${repeat(n, " cross join b")}`,
  cases: (n) => `select ${repeat(n, "case when ")}a${repeat(n, " then 1 end")}`,
  withs: (n) => `${repeat(n, "with x as (")}select 1${repeat(n, ") select 1")}`,
  collations: (n) => `select a${repeat(n, " collate c")}`,
  tests: (n) => `select a${repeat(n, " isnull")}`,
  list: (n) => `select 1 where a in (${repeat(n, "1,")}1)`,
  statements: (n) => repeat(n, "select 1;"),
  comments: (n) => `${repeat(n, "/*")} ${repeat(n, "*/")} select 1`,
  quotes: (n) => `select '${repeat(n, "''")}'`,
  broken: (n) => `select ${repeat(n, "(")}`
}

const samples: ReadonlyArray<readonly [string, SqlClassifier.StatementKind]> = [
  ["select id, name from users where id in (select user_id from orders)", "read"],
  ["with x as (delete from users returning *) select * from x", "write"],
  ["select pg_backend_pid()", "session"]
]

const isIntact = (classifier: SqlClassifier.SqlClassifier, salt: string) =>
  samples.every(([sql, kind]) => classifier.classify(`${sql} -- ${salt}`).kind === kind)

describe("the classification of a long text", () => {
  it.effect("leaves the classifier as it was, however deeply it nests", () =>
    Effect.gen(function* () {
      const classifier = yield* SqlClassifier.make
      for (const [name, shape] of Object.entries(shapes)) {
        for (const n of [300, 3_000, 9_000, 30_000, 300_000]) {
          classifier.classify(shape(n))
          assert.isTrue(isIntact(classifier, `${name} ${n}`), `${name} ${n}`)
        }
      }
    })
  )

  it.effect("leaves the classifier as it was, whatever hides how deeply it nests", () =>
    Effect.gen(function* () {
      const classifier = yield* SqlClassifier.make
      const hiding = [
        "-- don't\n",
        '-- a "\r',
        "/* it's */",
        "/* a /* nested ' */ \" */",
        "select $$'$$; ",
        "select $a$ ' $$ \" $a$; ",
        "select E'\\''; ",
        "select e'\\\\', 'a'; ",
        "select E'a'\n'\\''; ",
        "select E'a' -- '\n '\\''; ",
        "select U&'\\'; ",
        "select B'1', X'1', N'a', E''''; ",
        "select '''', ''; ",
        'select "a""\'"; ',
        "select a$'$1'; ",
        "select $1'a'; "
      ]
      const deep = [
        (n: number) => `select ${repeat(n, "- ")}a`,
        (n: number) => `select ${repeat(n, "not/**/")}a`,
        (n: number) => `select a${repeat(n, 'collate"C"')}`,
        (n: number) => `select a${repeat(n, "||a")}`,
        (n: number) => `select ${repeat(n, "(")}1${repeat(n, ")")}`,
        (n: number) => `select ${repeat(Math.min(n, 2_900), "case when a then ")}1${repeat(Math.min(n, 2_900), " end")}`
      ]
      for (const [i, prefix] of hiding.entries()) {
        for (const [j, make] of deep.entries()) {
          for (const n of [3_000, 6_200, 9_000, 15_000]) {
            const sql = prefix + make(n)
            classifier.classify(sql)
            assert.isTrue(Parser.isThere(), `${prefix} ${j} ${n}`)
            assert.isTrue(isIntact(classifier, `${i} ${j} ${n}`), `${prefix} ${j} ${n}`)
          }
        }
      }
    })
  )

  it.effect("is a read where the depth is in a constant or a comment only", () =>
    Effect.gen(function* () {
      const { classify } = yield* SqlClassifier.make
      const depth = repeat(7_000, "( - ")
      for (const sql of [
        `select '${depth}'`,
        `select $a$${depth}$a$`,
        `select E'\\'${depth}'`,
        `/* ${depth} */ select 1`,
        `-- ${depth}\nselect 1`,
        `select "${depth}" from (select 1) as x("${depth}")`
      ]) {
        assert.strictEqual(classify(sql).kind, "read", sql.slice(0, 20))
      }
    })
  )

  it.effect("is still a read at the size that generated SQL has", () =>
    Effect.gen(function* () {
      const { classify } = yield* SqlClassifier.make
      for (const name of ["brackets", "or", "calls", "unions", "cases", "list", "statements", "quotes"]) {
        assert.deepStrictEqual([name, classify(shapes[name]!(400)).kind], [name, "read"])
      }
      for (const name of ["list", "quotes"]) {
        assert.deepStrictEqual([name, classify(shapes[name]!(20_000)).kind], [name, "read"])
      }
    })
  )

  it.effect("is a write beyond what is analysed, and says why", () =>
    Effect.gen(function* () {
      const { classify } = yield* SqlClassifier.make
      const answer = (sql: string) => {
        const { changesSchema, kind, reason } = classify(sql)
        return [kind, reason, changesSchema]
      }
      assert.deepStrictEqual(answer(shapes.list!(100_000)), ["write", "too long to analyse", false])
      assert.deepStrictEqual(answer(shapes.plus!(20_000)), ["write", "nested too deeply to analyse", false])
      assert.deepStrictEqual(answer(`create table t (a int) -- ${repeat(70_000, "x")}`), [
        "write",
        "too long to analyse",
        true
      ])
      const rows = repeat(50_000, "(1),")
      assert.deepStrictEqual(answer(`insert into t values ${rows}(1)`), ["write", "INSERT", false])
      assert.deepStrictEqual(answer(`insert into t values ${rows}(1); create table u (a int)`), [
        "write",
        "INSERT",
        true
      ])
    })
  )

  it.effect("that breaks the parser costs a new parser, and nothing else", () =>
    Effect.gen(function* () {
      const classifier = yield* SqlClassifier.make
      // Past the guards, straight at the parser. It is corrupt after some 30 of these unless it is replaced.
      for (let i = 0; i < 40; i++) {
        assert.strictEqual(Parser.parse(shapes.plus!(30_000)), "unavailable")
        assert.strictEqual(classifier.classify(`select ${i}`).kind, "write")
        yield* Effect.promise(Parser.load)
        assert.isTrue(isIntact(classifier, `crash ${i}`))
        // What was said in between is not kept.
        assert.strictEqual(classifier.classify(`select ${i}`).kind, "read")
      }
    })
  )

  it.effect("does no harm on a stack that is nearly full", () =>
    Effect.gen(function* () {
      const classifier = yield* SqlClassifier.make
      let calls = 0
      const deep = (): void => {
        try {
          deep()
        } catch {
          calls++
          classifier.classify(`select ${calls} from users`)
        }
      }
      const bounded = () => {
        try {
          deep()
        } catch {
          return
        }
      }
      bounded()
      yield* Effect.promise(Parser.load)
      assert.isAbove(calls, 0)
      assert.isTrue(isIntact(classifier, "deep"))
    })
  )
})
