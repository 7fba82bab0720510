import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { DbRouter, Doctor, SqlClassifier } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import { catalogQuery, stampQuery } from "../../src/internal/classifier/catalogQuery.js"
import * as Sessions from "../support/session.js"

const off = "ALTER ROLE old SET standard_conforming_strings = off"

const schema = [
  "CREATE FUNCTION noted() RETURNS text LANGUAGE sql VOLATILE AS $$ INSERT INTO note VALUES (1) RETURNING 'w' $$",
  "CREATE FUNCTION hidden() RETURNS int LANGUAGE sql STABLE AS $$ /* a */ SELECT length(noted()) -- b\n $$",
  "CREATE FUNCTION sets() RETURNS void LANGUAGE plpgsql AS $$ BEGIN SET app.tenant = 'a'; END $$",
  "CREATE VIEW calling AS SELECT noted() AS t",
  "CREATE ROLE old LOGIN SUPERUSER PASSWORD 'secret'"
]

/** A read by the standard; with the setting off the function is called. */
const text = "SELECT 'a\\'', noted() --'"

const plainLiteral = /--[^\n]*|(?<![eE])'(?:[^']|'')*'/g
const escapedLiteral = /\bE'(?:[^'\\]|''|\\.)*'/g

layer(Sessions.layerWith(...schema), { excludeTestServices: true, timeout: "2 minutes" })(
  "standard_conforming_strings = off",
  (it) => {
    const options = Effect.map(PgCluster.PgCluster, ({ primary, replicas }) => {
      const engine = (node: PgCluster.Node) => {
        const url = new URL(Redacted.value(node.url))
        url.username = "old"
        url.password = "secret"
        return { url: Redacted.make(url.href), name: node.name }
      }
      return { groups: { default: [engine(primary)], read: replicas.map(engine) } }
    })

    it.effect("is nothing to the library's own texts", () =>
      Effect.gen(function* () {
        for (const query of [catalogQuery, stampQuery]) {
          const plain = query.replace(escapedLiteral, "").match(plainLiteral) ?? []
          assert.deepStrictEqual(
            plain.filter((found) => found.startsWith("'") && found.includes("\\")),
            []
          )
        }
        const { primary } = yield* PgCluster.PgCluster
        const { standardStrings: _, ...standard } = yield* SqlClassifier.readCatalog((sql) => primary.query(sql))
        yield* primary.query(off)
        yield* Effect.addFinalizer(() =>
          Effect.orDie(primary.query("ALTER ROLE old RESET standard_conforming_strings"))
        )
        yield* Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const { standardStrings, ...other } = yield* SqlClassifier.readCatalog((text) =>
            DbRouter.primary(sql.unsafe(text))
          )
          assert.isFalse(standardStrings)
          assert.deepStrictEqual(other, standard)
          assert.strictEqual((yield* (yield* DbRouter.DbRouter).explain(text)).kind, "write")
          assert.deepStrictEqual(yield* sql`SELECT count(*)::int AS n FROM note`, [{ n: 0 }])
        }).pipe(Effect.provide(DbRouter.layer(yield* options)))
        const { findings } = yield* Doctor.check(yield* options)
        assert.deepStrictEqual(
          findings.filter(({ level }) => level === "problem"),
          []
        )
      }).pipe(Effect.scoped)
    )

    it.effect("in the settings of a unit has all of it on the primary", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        const place = sql<{ p: boolean }>`SELECT NOT pg_is_in_recovery() AS p`
        for (const name of ["standard_conforming_strings", "Standard_Conforming_Strings"]) {
          const settings = { [name]: "off" }
          assert.deepStrictEqual(yield* DbRouter.session(place, { settings }), [{ p: true }])
          assert.deepStrictEqual(yield* DbRouter.session(DbRouter.detached(place), { settings }), [{ p: true }])
        }
        assert.deepStrictEqual(yield* DbRouter.session(place, { settings: { standard_conforming_strings: "on" } }), [
          { p: false }
        ])
      })
    )
  }
)
