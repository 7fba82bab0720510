import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer, Logger, Redacted } from "effect"
import { DbRouter } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import { eventually, partsOf } from "../support/engine.js"
import { becomes, events, over, quick, readPort, readPorts, statesOf, statusOf } from "../support/health.js"

const silent = Logger.replace(Logger.defaultLogger, Logger.none)

class Other extends Context.Tag("test/health-lag/Other")<Other, PgCluster.Cluster>() {}

const clusters = Layer.merge(
  PgCluster.layer({ replicas: 2 }),
  Layer.map(PgCluster.layer({ replicas: 0 }), (context) =>
    Context.make(Other, Context.get(context, PgCluster.PgCluster))
  )
)

const write = (node: PgCluster.Node, rows: number) =>
  node.query(`INSERT INTO filler SELECT repeat(md5(i::text), 10) FROM generate_series(1, ${rows}) AS i`)

// In this order: the last one promotes.
layer(clusters, { timeout: "60 seconds", excludeTestServices: true })("replicas that are behind or foreign", (it) => {
  it.scoped("a replica that is behind gets no reads until it has caught up; an idle primary is no lag", () =>
    Effect.gen(function* () {
      const { awaitReplayed, primary, replicas } = yield* PgCluster.PgCluster
      yield* primary.query("CREATE TABLE filler (text text)")
      yield* awaitReplayed
      yield* Effect.gen(function* () {
        const seen = yield* events
        // Longer than the limit, and nothing is written.
        yield* Effect.sleep("1500 millis")
        assert.deepStrictEqual((yield* statusOf("replica1")).state, "up")
        assert.deepStrictEqual((yield* statusOf("replica1")).lag, { millis: 0, bytes: 0n })
        yield* replicas[0]!.pauseReplay
        yield* write(primary, 1)
        yield* becomes("replica1", "lagging")
        const { eligible, lag, reason } = yield* statusOf("replica1")
        assert.isFalse(eligible)
        assert.isAbove(lag!.millis, 1_000)
        assert.include(reason, "behind the primary")
        assert.deepStrictEqual([...(yield* readPorts())], [replicas[1]!.port])
        yield* replicas[0]!.resumeReplay
        yield* becomes("replica1", "up")
        assert.include([...(yield* readPorts())], replicas[0]!.port)
        assert.deepStrictEqual(statesOf(seen, "replica1"), ["lagging", "up"])
        assert.deepStrictEqual(statesOf(seen, "replica2"), [])
      }).pipe(
        Effect.provide(over(primary, replicas, { health: { ...quick, maxLag: "1 second" } })),
        Effect.provide(silent)
      )
    })
  )

  it.scoped("so does one that has too much to replay", () =>
    Effect.gen(function* () {
      const { primary, replicas } = yield* PgCluster.PgCluster
      yield* Effect.gen(function* () {
        yield* replicas[0]!.pauseReplay
        yield* write(primary, 1_000)
        yield* becomes("replica1", "lagging")
        assert.include((yield* statusOf("replica1")).reason, "bytes")
        assert.isAbove(Number((yield* statusOf("replica1")).lag!.bytes), 65_536)
        yield* replicas[0]!.resumeReplay
        yield* becomes("replica1", "up")
      }).pipe(
        Effect.provide(over(primary, replicas, { health: { ...quick, maxLagBytes: 65_536 } })),
        Effect.provide(silent)
      )
    })
  )

  it.scoped("an ordinary role may probe", () =>
    Effect.gen(function* () {
      const { awaitReplayed, primary, replicas } = yield* PgCluster.PgCluster
      yield* primary.query("CREATE ROLE plain LOGIN PASSWORD 'plain'")
      yield* awaitReplayed
      const at = (node: PgCluster.Node) => ({
        ...partsOf(node),
        host: node.host,
        port: node.port,
        username: "plain",
        password: Redacted.make("plain"),
        name: node.name
      })
      yield* Effect.gen(function* () {
        const router = yield* DbRouter.DbRouter
        assert.deepStrictEqual(
          (yield* router.status).map(({ reason, role, state }) => [role, state, reason]),
          [
            ["primary", "up", undefined],
            ["replica", "up", undefined],
            ["replica", "up", undefined]
          ]
        )
      }).pipe(Effect.provide(over(primary, replicas, { groups: { default: [at(primary)], read: replicas.map(at) } })))
    })
  )

  it.scoped("a default isolation of serializable, which standbys refuse: read at repeatable read, and told once", () =>
    Effect.gen(function* () {
      const { awaitReplayed, primary, replicas } = yield* PgCluster.PgCluster
      const lines: Array<string> = []
      const recording = Logger.replace(
        Logger.defaultLogger,
        Logger.make(({ message }) => {
          lines.push(String(message))
        })
      )
      yield* primary.query("CREATE ROLE strict LOGIN PASSWORD 'strict'")
      yield* primary.query("ALTER ROLE strict SET default_transaction_isolation = serializable")
      yield* awaitReplayed
      const at = (node: PgCluster.Node) => ({
        ...partsOf(node),
        host: node.host,
        port: node.port,
        username: "strict",
        password: Redacted.make("strict"),
        name: node.name
      })
      const isolation = Effect.flatMap(SqlClient.SqlClient, (sql) =>
        Effect.map(
          sql<{ level: string; port: number }>`SELECT current_setting('transaction_isolation') AS level,
            current_setting('port')::int AS port`,
          (rows) => rows[0]!
        )
      )
      yield* Effect.gen(function* () {
        assert.deepStrictEqual(yield* isolation, { level: "repeatable read", port: replicas[0]!.port })
        assert.deepStrictEqual(yield* DbRouter.primary(isolation), { level: "serializable", port: primary.port })
        yield* Effect.sleep("1 second")
        assert.strictEqual((yield* statusOf("replica1")).state, "up")
      }).pipe(
        Effect.provide(over(primary, [], { groups: { default: [at(primary)], read: [at(replicas[0]!)] } })),
        Effect.provide(recording)
      )
      assert.strictEqual(lines.filter((line) => line.includes("repeatable read")).length, 1)
    })
  )

  it.scoped("a server of another system in the read group is never used", () =>
    Effect.gen(function* () {
      const { primary, replicas } = yield* PgCluster.PgCluster
      const other = (yield* Other).primary
      yield* Effect.gen(function* () {
        const { eligible, reason, state } = yield* statusOf("other")
        assert.deepStrictEqual([state, eligible], ["foreign", false])
        assert.include(reason, "system identifier")
        assert.deepStrictEqual([...(yield* readPorts())], [replicas[0]!.port])
      }).pipe(
        Effect.provide(
          over(primary, [], {
            groups: {
              default: [{ url: primary.url, name: "primary" }],
              read: [
                { url: replicas[0]!.url, name: "replica1" },
                { url: other.url, name: "other" }
              ]
            }
          })
        ),
        Effect.provide(silent)
      )
    })
  )

  it.scoped("after a promotion: who is still on the old timeline gets no reads, however far it is", () =>
    Effect.gen(function* () {
      const { primary, replicas } = yield* PgCluster.PgCluster
      const [promoted, standby] = replicas as [PgCluster.Node, PgCluster.Node]
      yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* promoted.promote
        // The old primary goes on, and its standby with it, past all that the new one has.
        yield* write(primary, 5_000)
        yield* becomes("replica2", "foreign")
        assert.include((yield* statusOf("replica2")).reason, "timeline 1")
        yield* becomes("primary", "foreign")
        assert.include((yield* statusOf("primary")).reason, "timeline 1")
        yield* becomes("replica1", "up")
        assert.strictEqual((yield* statusOf("replica1")).group, "default")
        // No replica is left, so the new primary serves, which has nothing of what was written behind its back.
        assert.deepStrictEqual([...(yield* readPorts())], [promoted.port])
        const [row] = yield* sql<{ n: number }>`SELECT count(*)::int AS n FROM filler`
        assert.strictEqual(row!.n, 1_001)
        yield* standby.rejoin(promoted)
        yield* becomes("replica2", "up")
        yield* eventually(readPort, (port) => port === standby.port)
      }).pipe(Effect.provide(over(primary, replicas)), Effect.provide(silent))
    })
  )
})
