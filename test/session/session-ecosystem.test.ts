import { SqlClient, SqlResolver } from "@effect/sql"
import * as PgDrizzle from "@effect/sql-drizzle/Pg"
import * as PgKysely from "@effect/sql-kysely/Pg"
import { assert, layer } from "@effect/vitest"
import * as core from "drizzle-orm/pg-core"
import { Effect, Exit, Layer, Option, Schema } from "effect"
import { DbRouter } from "effect-db-router"
import * as RouterTest from "../support/router.js"
import * as Sessions from "../support/session.js"

const { insert, stored } = Sessions

/** What runs an effect in a session. */
const sessions: Record<
  string,
  <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, unknown, R | DbRouter.DbRouter>
> = {
  session: DbRouter.session,
  newSession: DbRouter.newSession,
  "Session.scoped": (effect) => Effect.scoped(Effect.zipRight(Sessions.inScope, effect)),
  "run of Session.scoped": (effect) =>
    Effect.scoped(Effect.flatMap(Sessions.inScope, ({ run }) => DbRouter.detached(run(effect))))
}

const Note = Schema.Struct({ id: Schema.Number })

/** Resolvers, made outside every session, as a service makes them once. */
const resolvers = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const Insert = yield* SqlResolver.ordered("InsertNote", {
    Request: Note,
    Result: Note,
    execute: (requests) => sql`INSERT INTO note ${sql.insert(requests)} RETURNING id`
  })
  const ById = yield* SqlResolver.findById("NoteById", {
    Id: Schema.Number,
    Result: Note,
    ResultId: (note) => note.id,
    execute: (ids) => sql`SELECT id FROM note WHERE ${sql.in("id", ids)}`
  })
  return { Insert, ById }
})

const batched = <A, B, E, R>(items: ReadonlyArray<A>, f: (item: A) => Effect.Effect<B, E, R>) =>
  Effect.forEach(items, f, { batching: true })

// The declarations of `@effect/sql-drizzle` import those that drizzle has for CommonJS, which are types of their own.
const { integer, pgTable } = core as unknown as typeof import("drizzle-orm/pg-core", { with: {
  "resolution-mode": "require"
}})
const note = pgTable("note", { id: integer("id").primaryKey() })

const Live = Layer.provideMerge(PgDrizzle.layer, Sessions.layerWith())

/** Ends for all when so many have come. */
const meeting = (size: number) =>
  Effect.map(Effect.makeLatch(), (latch) => {
    let left = size
    return Effect.suspend(() => (--left === 0 ? Effect.zipRight(latch.open, Effect.void) : latch.await))
  })

layer(Live, { excludeTestServices: true, timeout: "2 minutes" })("in a session", (it) => {
  for (const [name, run] of Object.entries(sessions)) {
    it.effect(`resolvers share its transaction, and batch into one statement: ${name}`, () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        const { ById, Insert } = yield* resolvers
        const ids = [1, 2, 3, 4, 5]
        const [found, statements] = yield* RouterTest.traced(
          run(
            Effect.gen(function* () {
              yield* batched(ids, (id) => Insert.execute({ id }))
              const found = yield* batched(ids, ById.execute)
              const concurrently = yield* Effect.forEach(ids, ById.execute, {
                batching: true,
                concurrency: "unbounded"
              })
              assert.deepStrictEqual(yield* stored, [])
              return [...found, ...concurrently].map(Option.isSome)
            })
          )
        )
        assert.deepStrictEqual(found, new Array(10).fill(true))
        assert.deepStrictEqual(
          statements.map(({ engine, sql }) => [engine, sql.slice(0, 6)]),
          [
            ["primary", "INSERT"],
            ["primary", "SELECT"],
            ["primary", "SELECT"]
          ]
        )
        assert.deepStrictEqual(yield* stored, ids)
        yield* Effect.ignore(
          run(
            Effect.zipRight(
              batched([6, 7], (id) => Insert.execute({ id })),
              Effect.fail("no")
            )
          )
        )
        assert.deepStrictEqual(yield* stored, ids)
        yield* Sessions.assertQuiet
      })
    )

    it.effect(`drizzle and kysely share its transaction: ${name}`, () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        const db = yield* PgDrizzle.PgDrizzle
        const kysely = yield* PgKysely.make<{ note: { id: number } }>()
        const sql = yield* SqlClient.SqlClient
        const body = Effect.gen(function* () {
          yield* db.insert(note).values({ id: 1 })
          yield* kysely.insertInto("note").values({ id: 2 })
          yield* insert(3)
          yield* sql
            .withTransaction(Effect.zipRight(db.insert(note).values({ id: 4 }), Effect.fail("no")))
            .pipe(Effect.ignore)
          yield* sql.withTransaction(kysely.insertInto("note").values({ id: 5 }))
          assert.deepStrictEqual(yield* stored, [])
          const byDrizzle = yield* db.select({ id: note.id }).from(note).orderBy(note.id)
          const byKysely = yield* kysely.selectFrom("note").select("id").orderBy("id")
          assert.deepStrictEqual(byDrizzle, byKysely)
          return byDrizzle.map(({ id }) => id)
        })
        assert.deepStrictEqual(yield* run(body), [1, 2, 3, 5])
        assert.deepStrictEqual(yield* stored, [1, 2, 3, 5])
        yield* Sessions.setUp
        assert.isTrue(Exit.isFailure(yield* Effect.exit(run(Effect.zipRight(body, Effect.fail("no"))))))
        assert.deepStrictEqual(yield* stored, [])
        yield* Sessions.assertQuiet
      })
    )
  }

  it.effect("resolvers of two sessions at once are not mixed", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      const { ById, Insert } = yield* resolvers
      // Both have inserted before either reads, and both have read before either commits.
      const [inserted, read] = [yield* meeting(2), yield* meeting(2)]
      const one = (id: number, then: Effect.Effect<void, string>) =>
        DbRouter.newSession(
          Effect.gen(function* () {
            yield* Insert.execute({ id })
            yield* inserted
            const seen = yield* batched([1, 2], ById.execute)
            yield* read
            assert.deepStrictEqual(seen.map(Option.isSome), [id === 1, id === 2])
            yield* then
          })
        )
      yield* Effect.all([one(1, Effect.void), Effect.ignore(one(2, Effect.fail("no"))), ById.execute(1)], {
        concurrency: "unbounded",
        batching: true
      })
      assert.deepStrictEqual(yield* stored, [1])
    })
  )
})
