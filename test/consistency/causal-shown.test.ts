/** What the primary has shown a flow, whatever became of what showed it, the reads after it do not miss. */
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Layer, Stream } from "effect"
import { Consistency, DbRouter, Session } from "effect-db-router"
import * as Causal from "../support/causal.js"
import type * as RouterTest from "../support/router.js"

const { insert, insertOutside, sees, standingStill } = Causal

type Sql = SqlClient.SqlClient

const withSql = <A, E, R>(run: (sql: Sql) => Effect.Effect<A, E, R>) => Effect.flatMap(SqlClient.SqlClient, run)

const inTransaction = <A, E, R>(effect: Effect.Effect<A, E, R>) => withSql((sql) => sql.withTransaction(effect))

const reserved = (...texts: ReadonlyArray<string>) =>
  Effect.scoped(
    withSql((sql) =>
      Effect.flatMap(sql.reserve, (connection) =>
        Effect.forEach(texts, (text) => connection.executeRaw(text, []), { discard: true })
      )
    )
  )

type Show = (id: number) => Effect.Effect<unknown, unknown, RouterTest.Services>

const collides = (id: number) => Effect.flip(insert(id))
const updatesNone = (id: number) => withSql((sql) => sql`UPDATE note SET text = 'x' WHERE id = ${id} AND text = 'none'`)
const fails = (sql: Sql, id: number) => Effect.flip(sql`SELECT 1 / (SELECT count(*) - 1 FROM note WHERE id = ${id})`)
const givesUp = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.zipRight(effect, Effect.fail("gives up"))

/** How the primary shows a flow a row that the flow has not written. None of it commits a write. */
const shows: Record<string, Show> = {
  "an INSERT that collides": collides,
  "an INSERT with ON CONFLICT DO NOTHING": (id) =>
    withSql((sql) => sql`INSERT INTO note (id) VALUES (${id}) ON CONFLICT DO NOTHING RETURNING id`),
  "an UPDATE of no rows": updatesNone,
  "a read on the primary that fails": (id) => DbRouter.primary(withSql((sql) => fails(sql, id))),
  "a session statement that fails": (id) =>
    withSql((sql) => Effect.flip(sql`SELECT pg_advisory_lock(1 / (SELECT count(*) - 1 FROM note WHERE id = ${id}))`)),
  "a stream that fails": (id) =>
    withSql((sql) => Effect.flip(Stream.runDrain(sql`INSERT INTO note (id) VALUES (${id}) RETURNING id`.stream))),
  "a transaction whose INSERT collides": (id) => Effect.exit(inTransaction(insert(id))),
  "a transaction that goes on after a savepoint that has failed": (id) =>
    inTransaction(Effect.exit(inTransaction(insert(id)))),
  "a transaction that is rolled back after an UPDATE": (id) =>
    Effect.exit(inTransaction(givesUp(withSql((sql) => sql`UPDATE note SET text = 'x' WHERE id = ${id}`)))),
  "a transaction that is interrupted after an UPDATE": (id) =>
    Effect.exit(inTransaction(Effect.zipRight(updatesNone(id), Effect.interrupt))),
  "a transaction that dies after an UPDATE": (id) =>
    Effect.exit(inTransaction(Effect.zipRight(updatesNone(id), Effect.die("boom")))),
  "a transaction of which one fiber fails": (id) =>
    Effect.exit(inTransaction(Effect.all([insert(id), updatesNone(id)], { concurrency: "unbounded" }))),
  "a transaction whose COMMIT fails": (id) =>
    Effect.exit(inTransaction(withSql((sql) => sql`INSERT INTO twin VALUES (${-id})`))),
  "a session whose INSERT collides": (id) => Effect.exit(DbRouter.session(insert(id))),
  "a session that is rolled back early": (id) =>
    DbRouter.session(Effect.zipRight(Effect.exit(inTransaction(insert(id))), DbRouter.rollback)),
  "a new session that updates nothing": (id) => DbRouter.newSession(updatesNone(id)),
  "atomic work that is rolled back": (id) => Effect.exit(DbRouter.atomic(insert(id), { current: "savepoint" })),
  "a scoped session that is rolled back": (id) =>
    Effect.exit(Effect.scoped(Effect.zipRight(Session.scoped(), insert(id)))),
  "a detached read in a session that has seen it": (id) =>
    DbRouter.session(
      Effect.zipRight(
        updatesNone(id),
        Effect.map(DbRouter.detached(sees(id)), (found) => assert.isTrue(found))
      )
    ),
  "a transaction without a commit of its own that reads": (id) => Effect.exit(inTransaction(givesUp(sees(id)))),
  "a read on a reserved connection": (id) => reserved(`SELECT id FROM note WHERE id = ${id}`),
  "a lock that is taken on a reserved connection": () => reserved("SELECT pg_advisory_lock(1)"),
  "an INSERT that collides on a reserved connection": (id) =>
    Effect.exit(reserved("BEGIN", `INSERT INTO note (id) VALUES (${id})`)),
  "a stream on a reserved connection": (id) =>
    Effect.scoped(
      withSql((sql) =>
        Effect.flatMap(sql.reserve, (connection) =>
          Stream.runDrain(connection.executeStream(`SELECT id FROM note WHERE id = ${id}`, [], undefined))
        )
      )
    )
}

/** Where reads go then, and that the replicas do not have it: else the test proves nothing. */
const proves = (show: Show) =>
  Effect.gen(function* () {
    yield* DbRouter.reset
    const id = yield* insertOutside
    assert.isFalse(yield* sees(id), "a replica has it already")
    yield* DbRouter.reset
    yield* show(id)
    return yield* sees(id)
  })

const Twins = Layer.effectDiscard(
  withSql((sql) => sql`CREATE TABLE twin (id int REFERENCES note (id) DEFERRABLE INITIALLY DEFERRED)`)
)

const Live = Layer.provideMerge(Twins, Causal.layer({ consistency: Consistency.causal() }))

layer(Live, { excludeTestServices: true, timeout: "2 minutes" })("what the primary has shown in", (it) => {
  for (const [how, show] of Object.entries(shows)) {
    it.effect(`${how} the next read sees`, () =>
      Effect.gen(function* () {
        assert.isTrue(yield* standingStill(proves(show)))
      })
    )
  }
})
