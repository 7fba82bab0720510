import { SqlClient } from "@effect/sql"
import * as PgDrizzle from "@effect/sql-drizzle/Pg"
import * as PgKysely from "@effect/sql-kysely/Pg"
import { assert, layer } from "@effect/vitest"
import * as drizzle from "drizzle-orm"
import * as core from "drizzle-orm/pg-core"
import { Effect, Layer } from "effect"
import { DbRouter } from "effect-db-router"
import type { Generated } from "kysely"
import * as RouterTest from "../support/router.js"

const Live = Layer.provideMerge(PgDrizzle.layer, RouterTest.layer())

const setUp = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE IF NOT EXISTS author (id serial PRIMARY KEY, name text NOT NULL, books int NOT NULL DEFAULT 0)`
  yield* sql`TRUNCATE author RESTART IDENTITY`
  yield* sql`INSERT INTO author (name) VALUES ('ada'), ('bob')`
  yield* RouterTest.settle
  return sql
})

const authors = Effect.flatMap(RouterTest.PgCluster.PgCluster, ({ primary }) =>
  Effect.map(primary.query<{ name: string; books: number }>("SELECT name, books FROM author ORDER BY id"), (rows) =>
    rows.map((row) => `${row.name} ${row.books}`)
  )
)

// The declarations of `@effect/sql-drizzle` import those that drizzle has for CommonJS, which are types of their own.
const { eq, sql: drizzleSql } = drizzle as unknown as typeof import("drizzle-orm", { with: {
  "resolution-mode": "require"
}})
const { integer, pgTable, serial, text } = core as unknown as typeof import("drizzle-orm/pg-core", { with: {
  "resolution-mode": "require"
}})

const author = pgTable("author", {
  id: serial("id").primaryKey(),
  name: text("name").notNull(),
  books: integer("books").notNull().default(0)
})

layer(Live, { excludeTestServices: true, timeout: "2 minutes" })("drizzle", (it) => {
  it.effect("selects go to replicas, everything else to the primary", () =>
    Effect.gen(function* () {
      yield* setUp
      const db = yield* PgDrizzle.PgDrizzle
      const [rows, [select]] = yield* RouterTest.traced(
        db.select({ name: author.name }).from(author).orderBy(author.id)
      )
      assert.deepStrictEqual(rows, [{ name: "ada" }, { name: "bob" }])
      assert.deepInclude(select, { group: "read", kind: "read", reason: "plain SELECT" })
      const [[inserted, updated], statements] = yield* RouterTest.traced(
        Effect.all([
          db.insert(author).values({ name: "cy" }).returning(),
          db
            .update(author)
            .set({ books: drizzleSql`${author.books} + 1` })
            .where(eq(author.name, "bob"))
            .returning({ books: author.books }),
          db.delete(author).where(eq(author.name, "ada")),
          db.select().from(author).for("update")
        ])
      )
      assert.deepStrictEqual(inserted, [{ id: 3, name: "cy", books: 0 }])
      assert.deepStrictEqual(updated, [{ books: 1 }])
      assert.lengthOf(statements, 4)
      for (const { engine, kind } of statements) assert.deepStrictEqual([engine, kind], ["primary", "write"])
      assert.deepStrictEqual(yield* authors, ["bob 1", "cy 0"])
    })
  )

  it.effect("is part of a transaction, and its errors are the server's", () =>
    Effect.gen(function* () {
      const sql = yield* setUp
      const db = yield* PgDrizzle.PgDrizzle
      const [, statements] = yield* RouterTest.traced(
        Effect.ignore(
          sql.withTransaction(
            Effect.gen(function* () {
              yield* db.insert(author).values({ name: "cy" })
              assert.lengthOf(yield* db.select().from(author), 3)
              yield* Effect.ignore(sql.withTransaction(Effect.zipRight(db.delete(author), Effect.fail("no"))))
              assert.lengthOf(yield* db.select().from(author), 3)
              return yield* Effect.fail("no")
            })
          )
        )
      )
      assert.lengthOf(statements, 4)
      for (const { engine, reason } of statements) {
        assert.deepStrictEqual([engine, reason], ["primary", "inside a transaction"])
      }
      assert.deepStrictEqual(yield* authors, ["ada 0", "bob 0"])
      const error = yield* Effect.flip(db.insert(author).values({ id: 1, name: "again" }))
      assert.strictEqual(error._tag, "SqlError")
    })
  )

  it.effect("combinators say where its statements go", () =>
    Effect.gen(function* () {
      yield* setUp
      const db = yield* PgDrizzle.PgDrizzle
      const select = RouterTest.enginesOf(db.select().from(author))
      assert.deepStrictEqual(yield* DbRouter.primary(select), ["primary"])
      assert.deepStrictEqual(yield* DbRouter.bindGroup(select, "analytics"), ["analytics1"])
    })
  )

  it.effect("its writes stick inside a session", () =>
    Effect.gen(function* () {
      yield* setUp
      const db = yield* PgDrizzle.PgDrizzle
      const engines = yield* DbRouter.session(
        RouterTest.enginesOf(
          Effect.all([db.select().from(author), db.insert(author).values({ name: "cy" }), db.select().from(author)])
        )
      )
      assert.match(String(engines[0]), /^replica/)
      assert.deepStrictEqual(engines.slice(1), ["primary", "primary"])
    })
  )
})

interface Database {
  readonly author: { readonly id: Generated<number>; readonly name: string; readonly books: Generated<number> }
}

layer(RouterTest.layer(), { excludeTestServices: true, timeout: "2 minutes" })("kysely", (it) => {
  it.effect("selects go to replicas, everything else to the primary, and reads after it too", () =>
    Effect.gen(function* () {
      yield* setUp
      const db = yield* PgKysely.make<Database>()
      const names = db.selectFrom("author").select("name").orderBy("id")
      const [rows, [select]] = yield* RouterTest.traced(names)
      assert.deepStrictEqual(rows, [{ name: "ada" }, { name: "bob" }])
      assert.deepInclude(select, { group: "read", kind: "read", reason: "plain SELECT" })
      const [[inserted], statements] = yield* RouterTest.traced(
        Effect.all([
          db.insertInto("author").values({ name: "cy" }).returningAll(),
          db
            .updateTable("author")
            .set((eb) => ({ books: eb("books", "+", 1) }))
            .where("name", "=", "bob"),
          db.deleteFrom("author").where("name", "=", "ada"),
          db
            .with("gone", (db) => db.deleteFrom("author").where("name", "=", "cy").returning("id"))
            .selectFrom("gone")
            .selectAll(),
          names
        ])
      )
      assert.deepStrictEqual(inserted, [{ id: 3, name: "cy", books: 0 }])
      assert.deepStrictEqual(
        statements.map(({ engine, kind }) => `${engine} ${kind}`),
        ["primary write", "primary write", "primary write", "primary write", "primary read"]
      )
      assert.deepStrictEqual(yield* authors, ["bob 1"])
    })
  )

  it.effect("its transactions are the client's", () =>
    Effect.gen(function* () {
      const sql = yield* setUp
      const db = yield* PgKysely.make<Database>()
      const insert = (name: string) => db.insertInto("author").values({ name })
      const [, statements] = yield* RouterTest.traced(
        db.withTransaction(
          Effect.gen(function* () {
            yield* insert("cy")
            yield* Effect.ignore(db.withTransaction(Effect.zipRight(insert("dropped"), Effect.fail("no"))))
            yield* sql`INSERT INTO author (name) VALUES ('dan')`
            assert.lengthOf(yield* db.selectFrom("author").selectAll(), 4)
          })
        )
      )
      assert.lengthOf(statements, 4)
      for (const { engine, reason } of statements) {
        assert.deepStrictEqual([engine, reason], ["primary", "inside a transaction"])
      }
      assert.deepStrictEqual(yield* authors, ["ada 0", "bob 0", "cy 0", "dan 0"])
    })
  )

  it.effect("changes the schema on the primary, and the classifier knows of it", () =>
    Effect.gen(function* () {
      yield* setUp
      const db = yield* PgKysely.make<Database & { readonly shelf: { readonly id: number } }>()
      const [, [create]] = yield* RouterTest.traced(db.schema.createTable("shelf").addColumn("id", "integer"))
      assert.deepInclude(create, { engine: "primary", kind: "write" })
      yield* RouterTest.settle
      const [, [select]] = yield* RouterTest.traced(db.selectFrom("shelf").selectAll())
      assert.strictEqual(select?.group, "read")
    })
  )
})
