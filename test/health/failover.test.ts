import { SqlClient } from "@effect/sql"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Logger, Option, Stream } from "effect"
import { Consistency, DbRouter, type Health, type RouterConfig, RouterError } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import { eventually } from "../support/engine.js"
import { becomes, events, over, quick, statusOf } from "../support/health.js"

const silent = Logger.replace(Logger.defaultLogger, Logger.none)

/** A cluster of its own for each test: a promotion cannot be undone. */
const onCluster = <A, E>(use: (cluster: PgCluster.Cluster) => Effect.Effect<A, E, PgCluster.PgCluster>) =>
  Effect.gen(function* () {
    const cluster = yield* PgCluster.PgCluster
    yield* cluster.primary.query("create table note (text text)")
    yield* cluster.awaitReplayed
    return yield* use(cluster)
  }).pipe(Effect.provide(PgCluster.layer({ replicas: 2 })), Effect.provide(silent))

const insert = (text: string) => Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO note VALUES (${text})`)

const notes = (node: PgCluster.Node) =>
  Effect.map(node.query<{ text: string }>("select text from note order by text"), (rows) =>
    rows.map(({ text }) => text)
  )

const isPrimary = (name: string) =>
  eventually(
    Effect.map(statusOf(name), ({ group, role, state }) => `${group} ${role} ${state}`),
    (found) => found === "default primary up"
  )

const changesOf = (seen: ReadonlyArray<Health.Event>) =>
  seen.flatMap((event) => (event._tag === "PrimaryChanged" ? [event.engine] : []))

describe("a failover", { timeout: 60_000 }, () => {
  it.live("writes that come between the death of the primary and the promotion wait, and none fails", () =>
    onCluster((cluster) =>
      Effect.gen(function* () {
        const { primary, replicas } = cluster
        const [first, second] = [replicas[0]!, replicas[1]!]
        yield* Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const seen = yield* events
          yield* insert("before")
          yield* cluster.awaitReplayed
          yield* primary.kill
          const waiting = yield* Effect.fork(
            Effect.all(
              [
                insert("autocommitted"),
                sql.withTransaction(insert("in a transaction")),
                DbRouter.session(insert("in a session")),
                Effect.scoped(
                  Effect.flatMap(sql.reserve, (one) =>
                    one.execute("INSERT INTO note VALUES ('reserved')", [], undefined)
                  )
                ),
                Stream.runDrain(sql`INSERT INTO note VALUES ('streamed') RETURNING text`.stream),
                DbRouter.primary(sql`SELECT 1`)
              ],
              { concurrency: "unbounded" }
            )
          )
          yield* Effect.sleep("600 millis")
          yield* first.promote
          yield* Fiber.join(waiting)
          yield* isPrimary("replica1")
          const expected = ["autocommitted", "before", "in a session", "in a transaction", "reserved", "streamed"]
          assert.deepStrictEqual(yield* notes(first), expected)
          assert.deepStrictEqual(changesOf(seen), ["replica1"])
          // It still follows the server that is dead.
          assert.strictEqual((yield* statusOf("replica2")).eligible, false)
          yield* second.follow(first)
          yield* primary.rejoin(first)
          yield* becomes("replica2", "up")
          yield* becomes("primary", "up")
          const old = yield* statusOf("primary")
          assert.deepStrictEqual([old.group, old.role, old.eligible], ["read", "replica", true])
          yield* insert("after")
          assert.include(yield* notes(first), "after")
        }).pipe(
          Effect.scoped,
          Effect.provide(over(primary, replicas, { waitForPrimary: { statements: "30 seconds" } }))
        )
      })
    )
  )

  it.live("that is quick is no dispute: the old primary is dead before anybody knows", () =>
    onCluster((cluster) =>
      Effect.gen(function* () {
        const { primary, replicas } = cluster
        yield* Effect.gen(function* () {
          const seen = yield* events
          yield* insert("before")
          yield* cluster.awaitReplayed
          yield* primary.kill
          // A statement finds out that it is gone before a probe does.
          yield* Effect.fork(insert("between"))
          yield* replicas[0]!.promote
          yield* isPrimary("replica1")
          yield* insert("after")
          assert.strictEqual((yield* statusOf("primary")).state, "suspect")
          assert.deepStrictEqual(
            seen.filter(({ _tag }) => _tag === "PrimaryDisputed"),
            []
          )
          assert.deepStrictEqual(changesOf(seen), ["replica1"])
        }).pipe(
          Effect.scoped,
          Effect.provide(
            over(primary, replicas, {
              health: { ...quick, failures: 1_000 },
              waitForPrimary: { statements: "30 seconds" }
            })
          )
        )
      })
    )
  )

  it.live("without waiting, a write fails at once and says so; reads go on", () =>
    onCluster((cluster) =>
      Effect.gen(function* () {
        const { primary, replicas } = cluster
        yield* Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          yield* primary.kill
          const error = yield* Effect.flip(insert("lost"))
          assert.strictEqual(error.message, "Failed to acquire connection")
          assert.deepStrictEqual(yield* DbRouter.replica(sql`SELECT count(*)::int AS n FROM note`), [{ n: 0 }])
        }).pipe(Effect.provide(over(primary, replicas, { waitForPrimary: { statements: 0 } })))
      })
    )
  )

  it.live("an old primary that lives on gets no write more, what runs there is ended, and it is told of", () =>
    onCluster((cluster) =>
      Effect.gen(function* () {
        const { primary, replicas } = cluster
        yield* Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const seen = yield* events
          const open = yield* Effect.fork(
            Effect.either(
              sql.withTransaction(
                Effect.gen(function* () {
                  yield* insert("in an open transaction")
                  yield* isPrimary("replica1")
                  yield* insert("too late")
                })
              )
            )
          )
          yield* eventually(
            primary.query("select 1 from pg_locks where relation = 'note'::regclass"),
            (rows) => rows.length > 0
          )
          yield* replicas[0]!.promote
          yield* isPrimary("replica1")
          const ended = yield* Fiber.join(open)
          assert.strictEqual(ended._tag, "Left")
          yield* insert("on the new one")
          const disputed = yield* eventually(
            Effect.sync(() => seen.find((event) => event._tag === "PrimaryDisputed")),
            (event) => event !== undefined
          )
          assert.deepInclude(disputed, { engine: "replica1", rivals: ["primary"] })
          yield* becomes("primary", "foreign")
          yield* becomes("replica2", "foreign")
          for (let i = 0; i < 20; i++)
            assert.deepStrictEqual(yield* sql`SELECT text FROM note`, [{ text: "on the new one" }])
          assert.deepStrictEqual(yield* notes(primary), [])
          assert.deepStrictEqual(yield* notes(replicas[0]!), ["on the new one"])
        }).pipe(Effect.scoped, Effect.provide(over(primary, replicas)))
      })
    )
  )

  it.live("a router that starts when the configured primary is dead finds the one that was promoted", () =>
    onCluster((cluster) =>
      Effect.gen(function* () {
        const { primary, replicas } = cluster
        yield* primary.kill
        yield* replicas[0]!.promote
        yield* insert("found").pipe(Effect.provide(over(primary, replicas)))
        assert.deepStrictEqual(yield* notes(replicas[0]!), ["found"])
      })
    )
  )

  it.live("the start waits for a primary where it is told to, and no longer", () =>
    onCluster((cluster) =>
      Effect.gen(function* () {
        const { primary, replicas } = cluster
        for (const node of [primary, ...replicas]) yield* node.kill
        const failed = yield* Effect.flip(Effect.void.pipe(Effect.provide(over(primary, replicas))))
        assert.strictEqual(failed._tag, "SqlError")
        const waiting: Partial<RouterConfig.Options> = { waitForPrimary: { atStart: "1 second" } }
        const late = yield* Effect.flip(Effect.void.pipe(Effect.provide(over(primary, replicas, waiting))))
        assert.strictEqual(late._tag, "SqlError")
        const patient = { waitForPrimary: { atStart: "30 seconds" } } as const
        const built = yield* Effect.fork(insert("there").pipe(Effect.provide(over(primary, replicas, patient))))
        yield* Effect.sleep("700 millis")
        yield* primary.start
        yield* Fiber.join(built)
        assert.deepStrictEqual(yield* notes(primary), ["there"])
      })
    )
  )

  it.live("several servers in the default group: the primary is the one that says so, the others take reads", () =>
    onCluster((cluster) =>
      Effect.gen(function* () {
        const { nodes, primary, replicas } = cluster
        yield* Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          yield* insert("somewhere")
          assert.deepStrictEqual(yield* notes(primary), ["somewhere"])
          const ports = yield* Effect.replicateEffect(DbRouter.replica(sql<{ port: string }>`SHOW port`), 10)
          assert.deepStrictEqual(
            new Set(ports.map(([row]) => Number(row!.port))),
            new Set(replicas.map(({ port }) => port))
          )
        }).pipe(
          Effect.provide(
            DbRouter.layer({
              groups: { default: [...nodes].reverse().map(({ name, url }) => ({ name, url })) },
              consistency: Consistency.eventual(),
              health: quick
            })
          )
        )
      })
    )
  )

  it.live("a promotion of a server that the router does not know: writes go nowhere, and the error says why", () =>
    onCluster((cluster) =>
      Effect.gen(function* () {
        const { primary, replicas } = cluster
        // The one that is promoted is not in the options.
        yield* Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          yield* replicas[0]!.promote
          yield* replicas[1]!.follow(replicas[0]!)
          yield* eventually(
            Effect.map(statusOf("primary"), ({ eligible }) => eligible),
            (eligible) => !eligible
          )
          const error = yield* Effect.flip(insert("lost"))
          assert.deepStrictEqual(RouterError.reasonOf(error), Option.some("NoEngineAvailable"))
          // The replica is on the newest timeline: its data is good.
          yield* becomes("replica2", "up")
          assert.deepStrictEqual(yield* DbRouter.replica(sql`SELECT count(*)::int AS n FROM note`), [{ n: 0 }])
        }).pipe(Effect.provide(over(primary, [replicas[1]!], { waitForPrimary: { statements: "500 millis" } })))
        assert.deepStrictEqual(yield* notes(primary), [])
      })
    )
  )

  it.live("nothing is left of it: connections, fibers, listeners", () =>
    onCluster((cluster) =>
      Effect.gen(function* () {
        const { primary, replicas } = cluster
        yield* Effect.gen(function* () {
          yield* Effect.all(
            Array.from({ length: 8 }, (_, i) => insert(`before ${i}`)),
            { concurrency: "unbounded" }
          )
          yield* replicas[0]!.promote
          yield* isPrimary("replica1")
          yield* Effect.all(
            Array.from({ length: 8 }, (_, i) => insert(`after ${i}`)),
            { concurrency: "unbounded" }
          )
        }).pipe(Effect.provide(over(primary, replicas)))
        for (const node of [primary, ...replicas]) {
          yield* eventually(
            node.query("select pid from pg_stat_activity where application_name like 'effect-db-router%'"),
            (rows) => rows.length === 0
          )
        }
      })
    )
  )
})
