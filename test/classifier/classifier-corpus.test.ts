import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { SqlClassifier } from "effect-db-router"
import { analyze } from "../../src/internal/classifier/analyze.js"
import { builtin } from "../../src/internal/classifier/knowledge.js"
import { corpus } from "../support/corpus.js"

describe("a classifier without a server", () => {
  it("has a corpus of several hundred different statements, of all kinds", () => {
    const texts = new Set(corpus.map((entry) => entry.sql))
    assert.strictEqual(texts.size, corpus.length)
    for (const kind of ["read", "write", "session"]) {
      assert.isAtLeast(corpus.filter((entry) => entry.bare === kind).length, 100, kind)
    }
  })

  it.effect("answers as people do", () =>
    Effect.gen(function* () {
      const { classify } = yield* SqlClassifier.make
      const wrong = corpus.flatMap(({ bare, sql }) => {
        const { kind, reason } = classify(sql)
        return kind === bare ? [] : [{ sql, expected: bare, kind, reason }]
      })
      assert.deepStrictEqual(wrong, [])
    })
  )

  it.effect("gives a reason, where both classifiers have the same answer", () =>
    Effect.gen(function* () {
      const { classify } = yield* SqlClassifier.make
      for (const { bare, kind, reason, sql } of corpus) {
        const answer = classify(sql)
        assert.notStrictEqual(answer.reason, "", sql)
        if (reason !== undefined && kind === bare && !answer.reason.includes("unknown")) {
          assert.include(answer.reason, reason, sql)
        }
      }
    })
  )

  it.effect("takes a text of several statements for the worst of them", () =>
    Effect.gen(function* () {
      const { classify } = yield* SqlClassifier.make
      const rank = { read: 0, session: 1, write: 2 }
      const unfit = new Set(["does not parse", "no statement"])
      const parts = corpus.filter(({ sql }) => !/["'$\\{]|--|\/\*/.test(sql) && !unfit.has(classify(sql).reason))
      assert.isAbove(parts.length, 300)
      parts.forEach(({ sql }, i) => {
        const other = parts[(i * 31 + 7) % parts.length]!.sql
        const [a, b, both] = [classify(sql), classify(other), classify(`${sql};\n${other}`)]
        assert.strictEqual(both.kind, rank[a.kind] >= rank[b.kind] ? a.kind : b.kind, `${sql}; ${other}`)
        assert.strictEqual(both.changesSchema, a.changesSchema || b.changesSchema, `${sql}; ${other}`)
      })
    })
  )

  it("takes syntax that it does not know for a write", () => {
    const answer = (statement: Record<string, unknown>) => {
      const { changesSchema, kind, reason } = analyze({ stmts: [{ stmt: statement }] }, builtin)
      return [kind, reason, changesSchema]
    }
    assert.deepStrictEqual(answer({ TeleportStmt: {} }), ["write", "unknown statement TeleportStmt", true])
    const inside = { SelectStmt: { targetList: [{ ResTarget: { val: { TeleportExpr: { arg: {} } } } }] } }
    assert.deepStrictEqual(answer(inside), ["write", "unknown syntax TeleportExpr", false])
    assert.deepStrictEqual(answer({ SelectStmt: { teleportClause: { TeleportExpr: {} } } })[0], "write")
  })

  it.effect("says what may change the schema", () =>
    Effect.gen(function* () {
      const { classify } = yield* SqlClassifier.make
      const changes = (sql: string) => classify(sql).changesSchema
      for (const sql of [
        "create table t (a int)",
        "alter function f() stable",
        "drop view v",
        "select * into t from users",
        "create policy p on users using (true)",
        "do $$ begin end $$",
        "call p()",
        "select 1; create view v as select 1",
        "create extension citext",
        "explain analyze create table t as select 1",
        "alter table of the next version of postgresql"
      ]) {
        assert.isTrue(changes(sql), sql)
      }
      for (const sql of [
        "select 1",
        "insert into t values (1)",
        "vacuum",
        "grant select on t to r",
        "create index on t (a)",
        "create temp table t (a int)",
        "create temp table t as select 1",
        "create temp view v as select 1",
        "select 1 as a into temp t",
        "set a = 1",
        "selec 1",
        ""
      ]) {
        assert.isFalse(changes(sql), sql)
      }
    })
  )
})
