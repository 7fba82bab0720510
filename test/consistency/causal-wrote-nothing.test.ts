import { SqlClient, type SqlError } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, Layer, Redacted } from "effect"
import { Consistency, DbRouter, RouterError, SqlClassifier } from "effect-db-router"
import { explained, insertOutside, newId, sees, standingStill } from "../support/causal.js"
import * as RouterTest from "../support/router.js"

const schema = [
  "CREATE TABLE note (id int PRIMARY KEY, text text)",
  "CREATE TABLE part (note int REFERENCES note DEFERRABLE INITIALLY DEFERRED)",
  "INSERT INTO note VALUES (-1)",
  "CREATE FUNCTION quiet() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1'",
  "CREATE FUNCTION noisy(i int) RETURNS int LANGUAGE sql VOLATILE AS 'INSERT INTO note VALUES (i) RETURNING id'",
  "CREATE FUNCTION orphan() RETURNS void LANGUAGE sql VOLATILE AS 'INSERT INTO part VALUES (-99)'",
  "CREATE PROCEDURE rest() LANGUAGE plpgsql AS 'BEGIN PERFORM 1; END'",
  `CREATE FUNCTION regret(i int) RETURNS int LANGUAGE plpgsql AS
     'BEGIN INSERT INTO note VALUES (i); RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN RETURN 0; END'`
]

const Servers = Layer.tap(
  RouterTest.PgCluster.layer({ replicas: 1, settings: { log_statement: "all", max_prepared_transactions: "2" } }),
  (context) =>
    Effect.forEach(schema, (sql) =>
      Effect.flatMap(RouterTest.PgCluster.PgCluster, ({ primary }) => primary.query(sql))
    ).pipe(Effect.provide(context))
)

const router = (consistency: Consistency.Consistency, options?: RouterTest.Options) =>
  RouterTest.router({ consistency, ...options })

// After a transaction that has written reads stay on the primary.
const sticky = router(Consistency.sticky({ resetOnCommit: false }))

/** Whether what a flow has done counts as a write. */
const counts = <E, R>(effect: Effect.Effect<unknown, E, R>) =>
  Effect.zipRight(
    DbRouter.reset,
    Effect.map(Effect.zipRight(effect, explained), ({ group }) => group === "default")
  )

const unsafe = (text: string) => Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe(text))

const inTransaction = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(effect))

/** The ends of transactions that the primary has logged since, but for those of the cluster's own connections. */
const endsOf = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const { primary } = yield* RouterTest.PgCluster.PgCluster
    const logged = Effect.map(primary.log, (log) =>
      log
        .split("\n")
        .filter((line) => /statement: .*(?:COMMIT|ROLLBACK)/.test(line))
        .map((line) => line.replace(/^.*statement: /, ""))
    )
    const before = yield* logged
    yield* effect
    return (yield* logged).slice(before.length)
  })

const asking = /^SAVEPOINT edr_\d+; SELECT WHERE pg_catalog.pg_current_xact_id_if_assigned\(\) IS NULL; COMMIT$/

layer(Servers, { excludeTestServices: true, timeout: "2 minutes" })("a transaction that wrote nothing", (it) => {
  it.effect("is no write, whatever its statements might have done; one that wrote is", () =>
    Effect.gen(function* () {
      const written: ReadonlyArray<readonly [text: string, wrote: boolean]> = [
        ["SELECT quiet()", false],
        ["SELECT noisy(#)", true],
        ["WITH made AS (INSERT INTO note VALUES (#) RETURNING id) SELECT id FROM made", true],
        ["SELECT regret(#)", true],
        ["SELECT id FROM note WHERE id = -1 FOR UPDATE", true],
        ["SELECT id FROM note WHERE id = -2 FOR UPDATE", false],
        ["UPDATE note SET text = 'x' WHERE id = -1", true],
        ["UPDATE note SET text = 'x' WHERE id = -2", false],
        ["DELETE FROM note WHERE id = -2", false],
        ["INSERT INTO note VALUES (#)", true],
        ["INSERT INTO note SELECT id FROM note WHERE id = -2", false],
        ["DO $$ BEGIN PERFORM 1; END $$", false],
        ["DO $$ BEGIN INSERT INTO note VALUES (#); END $$", true],
        ["CALL rest()", false],
        ["CREATE TEMPORARY TABLE scratch (id int) ON COMMIT DROP", true],
        ["SELECT quiet(); SELECT quiet()", true]
      ]
      for (const mode of ["on", "off"]) {
        for (const [text, wrote] of written) {
          const run = Effect.flatMap(newId, (id) =>
            Effect.zipRight(unsafe(`SET LOCAL synchronous_commit = ${mode}`), unsafe(text.replace("#", `${id}`)))
          )
          assert.strictEqual(yield* counts(inTransaction(run)), wrote, `${text}, ${mode}`)
          assert.strictEqual(yield* counts(DbRouter.session(run)), wrote, `${text} in a session, ${mode}`)
        }
      }
      assert.isTrue(
        yield* counts(
          inTransaction(
            Effect.zipRight(
              unsafe("SELECT quiet()"),
              Effect.flatMap(newId, (id) => unsafe(`INSERT INTO note VALUES (${id})`))
            )
          )
        )
      )
      assert.isFalse(yield* counts(inTransaction(unsafe("SELECT 1"))))
    }).pipe(Effect.provide(sticky))
  )

  it.effect("is none by its savepoints either, unless one of them was assigned an id", () =>
    Effect.gen(function* () {
      const id = yield* newId
      const nested = (text: string) => inTransaction(unsafe(text))
      assert.isFalse(yield* counts(inTransaction(nested("SELECT quiet()"))))
      assert.isFalse(yield* counts(inTransaction(Effect.zip(nested("SELECT quiet()"), nested("CALL rest()")))))
      assert.isTrue(yield* counts(inTransaction(nested(`SELECT noisy(${id})`))))
      const undone = Effect.exit(
        inTransaction(Effect.zipRight(unsafe(`SELECT noisy(${id + 1000})`), Effect.fail("no")))
      )
      assert.isTrue(yield* counts(inTransaction(undone)))
    }).pipe(Effect.provide(sticky))
  )

  it.effect("counts as a write where a text ended it on the way: what was committed before is unknown", () =>
    Effect.gen(function* () {
      const ids = yield* Effect.replicateEffect(newId, 3)
      for (const [i, end] of ["COMMIT AND CHAIN", "PREPARE TRANSACTION 'both'", "COMMIT; BEGIN"].entries()) {
        const run = Effect.zipRight(unsafe(`SELECT noisy(${ids[i]})`), unsafe(end))
        assert.isTrue(yield* counts(inTransaction(run)), end)
      }
      yield* unsafe("COMMIT PREPARED 'both'")
      const { primary } = yield* RouterTest.PgCluster.PgCluster
      assert.lengthOf(yield* primary.query("SELECT FROM note WHERE id = ANY ($1)", [ids]), 3)
    }).pipe(Effect.provide(sticky))
  )

  it.effect("is asked for in the packet of the COMMIT, and only where it is unknown whether it wrote", () =>
    Effect.gen(function* () {
      const [one] = yield* endsOf(inTransaction(unsafe("SELECT quiet()")))
      assert.match(one!, asking)
      for (const text of ["SELECT 1", "UPDATE note SET text = 'y' WHERE id = -1"]) {
        assert.deepStrictEqual(yield* endsOf(inTransaction(unsafe(text))), ["COMMIT"], text)
      }
      const twice = Effect.zipRight(unsafe("SELECT quiet()"), unsafe("UPDATE note SET text = 'y' WHERE id = -1"))
      assert.deepStrictEqual(yield* endsOf(inTransaction(twice)), ["COMMIT"])
    }).pipe(Effect.provide(sticky))
  )

  it.effect("leaves a COMMIT that fails as it is, and its connection", () =>
    Effect.gen(function* () {
      const codeOf = (error: SqlError.SqlError) => (error.cause as { readonly code?: string }).code
      const failing = Effect.flip(inTransaction(unsafe("SELECT orphan()")))
      assert.strictEqual(codeOf((yield* failing) as SqlError.SqlError), "23503")
      const aborted = Effect.flip(
        inTransaction(Effect.zipRight(unsafe("SELECT quiet()"), Effect.ignore(unsafe("SELECT 1 / 0 FROM note"))))
      )
      assert.strictEqual(
        RouterError.reasonOf((yield* aborted) as SqlError.SqlError).pipe((o) =>
          o._tag === "Some" ? o.value : undefined
        ),
        "CommitRolledBack"
      )
      assert.isFalse(yield* counts(inTransaction(unsafe("SELECT quiet()"))))
    }).pipe(Effect.provide(router(Consistency.sticky({ resetOnCommit: false }), { engine: { maxConnections: 1 } })))
  )

  it.effect(
    "counts as a write where the role may not ask; its COMMIT succeeds, and the question is not sent again",
    () =>
      Effect.gen(function* () {
        const { primary, replicas } = yield* RouterTest.PgCluster.PgCluster
        yield* primary.query("CREATE ROLE shy LOGIN PASSWORD 'shy'")
        yield* primary.query("GRANT ALL ON ALL TABLES IN SCHEMA public TO shy")
        const at = (node: RouterTest.PgCluster.Node) => {
          const url = new URL(Redacted.value(node.url))
          url.username = "shy"
          url.password = "shy"
          return { url: Redacted.make(url.toString()), name: node.name }
        }
        const options = { groups: { default: [at(primary)], read: replicas.map(at) } }
        const consistency = Consistency.sticky({ resetOnCommit: false })
        yield* RouterTest.settle
        yield* Effect.gen(function* () {
          const write = Effect.flatMap(newId, (id) => inTransaction(unsafe(`SELECT noisy(${id})`)))
          const [first] = yield* endsOf(write)
          assert.match(first!, asking)
          // A right may be lost at any time.
          yield* primary.query("REVOKE EXECUTE ON FUNCTION pg_current_xact_id_if_assigned() FROM PUBLIC")
          const id = yield* newId
          assert.isTrue(yield* counts(inTransaction(unsafe(`SELECT noisy(${id})`))))
          assert.lengthOf(yield* primary.query("SELECT FROM note WHERE id = $1", [id]), 1)
          assert.deepStrictEqual(yield* endsOf(write), ["COMMIT"])
          assert.isTrue(yield* counts(inTransaction(unsafe("SELECT quiet()"))))
        }).pipe(
          Effect.provide(DbRouter.layer({ ...options, consistency })),
          Effect.ensuring(
            Effect.orDie(primary.query("GRANT EXECUTE ON FUNCTION pg_current_xact_id_if_assigned() TO PUBLIC"))
          )
        )
      })
  )

  it.effect("does not make anybody read the catalog again", () =>
    Effect.gen(function* () {
      const classifier = yield* SqlClassifier.make
      let refreshed = 0
      const counting = Layer.succeed(SqlClassifier.SqlClassifier, {
        ...classifier,
        refresh: Effect.sync(() => {
          refreshed++
        })
      })
      yield* Effect.gen(function* () {
        yield* inTransaction(unsafe("DO $$ BEGIN PERFORM 1; END $$"))
        assert.strictEqual(refreshed, 0)
        yield* inTransaction(unsafe("DO $$ BEGIN CREATE TABLE made (id int); DROP TABLE made; END $$"))
        assert.strictEqual(refreshed, 1)
      }).pipe(Effect.provide(Layer.provide(sticky, counting)))
    })
  )

  it.effect("is no write of the process; what it has read its own flow does not miss afterwards", () =>
    standingStill(
      Effect.gen(function* () {
        const inOthers = Effect.flatMap(Effect.forkDaemon(Effect.zipRight(DbRouter.reset, explained)), Fiber.join)
        const id = yield* insertOutside
        assert.isFalse(yield* sees(id))
        const sql = yield* SqlClient.SqlClient
        const [row] = yield* sql.withTransaction(sql`SELECT quiet(), id FROM note WHERE id = ${id}`)
        assert.strictEqual(row?.id, id)
        assert.isTrue(yield* sees(id))
        assert.strictEqual((yield* inOthers).group, "read")
        yield* DbRouter.reset
        assert.isFalse(yield* sees(id))
        // What shows no rows may tell of them all the same.
        yield* DbRouter.session(sql`UPDATE note SET text = 'z' WHERE id = ${id} AND text = 'none'`)
        assert.isTrue(yield* sees(id))
        assert.strictEqual((yield* inOthers).group, "read")
        const other = yield* newId
        yield* sql.withTransaction(sql`SELECT noisy(${other})`)
        assert.strictEqual((yield* inOthers).group, "default")
      })
    ).pipe(Effect.provide(router(Consistency.causal({ scope: "process" }))))
  )
})
