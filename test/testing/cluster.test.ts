import * as Net from "node:net"
import { assert, describe, it, layer } from "@effect/vitest"
import { Clock, type Duration, Effect, Redacted } from "effect"
import { PgCluster } from "effect-db-router/testing"
import Pg from "pg"
import { TestCluster } from "../support/cluster.js"

const inRealTime = Effect.withClock(Clock.make())

const count = (node: PgCluster.Node, table: string) =>
  Effect.map(node.query<{ readonly n: number }>(`select count(*)::int as n from ${table}`), (rows) => rows[0]!.n)

const reason = <A>(effect: Effect.Effect<A, PgCluster.PgClusterError>) =>
  Effect.map(Effect.flip(effect), (error) => error.reason)

/** A driver's connection, which outlives what happens to the server. */
const connect = (node: PgCluster.Node) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const client = new Pg.Client({ connectionString: Redacted.value(node.url) })
      const broken = new Promise<string>((resolve) => client.on("error", (cause) => resolve(cause.message)))
      await client.connect()
      return { client, broken }
    }),
    ({ client }) => Effect.promise(() => client.end())
  )

/** The answer, or `undefined` when there is none for a while. */
const answerWithin = (client: Pg.Client, wait: Duration.DurationInput) => {
  const answer = client.query("select 1 as one").then((result) => result.rows[0] as unknown)
  return {
    answer,
    early: inRealTime(
      Effect.race(
        Effect.promise(() => answer),
        Effect.as(Effect.sleep(wait), undefined)
      )
    )
  }
}

layer(TestCluster)("a cluster", (it) => {
  it.effect("has a primary and standbys that stream from it", () =>
    Effect.gen(function* () {
      const cluster = yield* PgCluster.PgCluster
      assert.deepStrictEqual(
        cluster.nodes.map((node) => node.name),
        ["primary", "replica1", "replica2"]
      )
      assert.strictEqual(new Set(cluster.nodes.map((node) => node.port)).size, 3)
      const standbys = yield* cluster.primary.query<{ readonly application_name: string }>(
        "select application_name from pg_stat_replication where state = 'streaming' order by 1"
      )
      assert.deepStrictEqual(
        standbys.map((row) => row.application_name),
        ["replica1", "replica2"]
      )
      for (const replica of cluster.replicas) {
        assert.deepStrictEqual(yield* replica.query("select pg_is_in_recovery() as standby"), [{ standby: true }])
      }
    })
  )

  it.scoped("is reached through each node's URL, which is not printed", () =>
    Effect.gen(function* () {
      const { nodes, password } = yield* PgCluster.PgCluster
      for (const node of nodes) {
        const { client } = yield* connect(node)
        const { rows } = yield* Effect.promise(() => client.query("select inet_server_port() as port"))
        assert.deepStrictEqual(rows, [{ port: node.port }])
        assert.notInclude(JSON.stringify(node) + String(node.url), Redacted.value(password))
      }
    })
  )

  it.effect("refuses a connection without the password", () =>
    Effect.gen(function* () {
      const { primary } = yield* PgCluster.PgCluster
      const url = new URL(Redacted.value(primary.url))
      url.password = "wrong"
      const code = yield* Effect.promise(() =>
        new Pg.Client({ connectionString: url.href }).connect().then(
          () => "connected",
          (cause: { readonly code: string }) => cause.code
        )
      )
      assert.strictEqual(code, "28P01")
    })
  )

  it.effect("awaitReplayed: what was written is on every standby", () =>
    Effect.gen(function* () {
      const { awaitReplayed, primary, replicas } = yield* PgCluster.PgCluster
      yield* primary.query("create table written (i int)")
      for (let round = 1; round <= 20; round++) {
        yield* primary.query("insert into written values ($1)", [round])
        yield* awaitReplayed
        for (const replica of replicas) assert.strictEqual(yield* count(replica, "written"), round)
      }
    })
  )

  it.scoped("awaitReplayed: an asynchronous commit too", () =>
    Effect.gen(function* () {
      const { awaitReplayed, primary, replicas } = yield* PgCluster.PgCluster
      yield* primary.query("create table lazily (i int)")
      const { client } = yield* connect(primary)
      yield* Effect.promise(() => client.query("set synchronous_commit = off"))
      yield* Effect.promise(() => client.query("insert into lazily values (1)"))
      yield* awaitReplayed
      for (const replica of replicas) assert.strictEqual(yield* count(replica, "lazily"), 1)
    })
  )

  it.effect("awaitReplayed: ends at the start of a segment and of a page", () =>
    Effect.gen(function* () {
      const { awaitReplayed, primary } = yield* PgCluster.PgCluster
      yield* primary.query("select pg_switch_wal()")
      yield* awaitReplayed
      const emit = (bytes: number) =>
        primary.query<{ readonly offset: number }>(
          `select ((pg_logical_emit_message(false, '', repeat('x', $1), true) - '0/0') % 8192)::int as offset`,
          [bytes]
        )
      const insertOffset = Effect.map(
        primary.query<{ readonly offset: number }>(
          "select ((pg_current_wal_insert_lsn() - '0/0') % 8192)::int as offset"
        ),
        (rows) => rows[0]!.offset
      )
      let ends = 0
      for (let round = 0; round < 20 && ends < 3; round++) {
        // A record with this much besides its text, rounded up to eight bytes, ends just where the page does.
        const overhead = 56
        yield* emit(Math.max(300, 8192 - (yield* insertOffset) - overhead))
        if ((yield* insertOffset) === 24) ends++
        yield* awaitReplayed
      }
      assert.isAtLeast(ends, 1)
    })
  )

  it.effect("pauseReplay and resumeReplay", () =>
    Effect.gen(function* () {
      const { awaitReplayed, primary, replicas } = yield* PgCluster.PgCluster
      const [paused, other] = replicas as [PgCluster.Node, PgCluster.Node]
      yield* primary.query("create table held (i int)")
      yield* awaitReplayed
      yield* paused.pauseReplay
      yield* primary.query("insert into held values (1)")
      yield* inRealTime(Effect.repeat(count(other, "held"), { until: (n) => n === 1 }))
      assert.strictEqual(yield* count(paused, "held"), 0)
      yield* paused.resumeReplay
      yield* awaitReplayed
      assert.strictEqual(yield* count(paused, "held"), 1)
      assert.strictEqual(yield* reason(primary.pauseReplay), "NotStandby")
    })
  )

  it.scoped("kill and start: connections break, data stays", () =>
    Effect.gen(function* () {
      const { awaitReplayed, nodes, primary, replicas } = yield* PgCluster.PgCluster
      yield* primary.query("create table kept (i int)")
      for (const [index, node] of [primary, replicas[0]!].entries()) {
        const { broken } = yield* connect(node)
        yield* node.kill
        assert.isFalse(yield* node.isRunning)
        assert.include(yield* Effect.promise(() => broken), "terminated unexpectedly")
        assert.strictEqual(yield* reason(node.query("select 1")), "NotRunning")
        yield* node.kill
        yield* node.start
        yield* node.start
        yield* primary.query("insert into kept values (1)")
        yield* awaitReplayed
        for (const each of nodes) assert.strictEqual(yield* count(each, "kept"), index + 1)
      }
    })
  )

  it.scoped("freeze and thaw: nothing answers, nothing is lost", () =>
    Effect.gen(function* () {
      const { awaitReplayed, primary, replicas } = yield* PgCluster.PgCluster
      for (const node of [primary, replicas[0]!]) {
        const { client } = yield* connect(node)
        yield* node.freeze
        yield* node.freeze
        assert.isTrue(yield* node.isRunning)
        assert.strictEqual(yield* reason(node.query("select 1")), "Frozen")
        assert.strictEqual(yield* reason(node.stop), "Frozen")
        const { answer, early } = answerWithin(client, "200 millis")
        assert.isUndefined(yield* early)
        // The kernel takes connections for a server that stands still.
        const socket = Net.connect(node.port, node.host)
        yield* Effect.promise(() => new Promise((resolve) => socket.once("connect", resolve)))
        socket.destroy()
        yield* node.thaw
        yield* node.thaw
        assert.deepStrictEqual(yield* Effect.promise(() => answer), { one: 1 })
        yield* awaitReplayed
      }
    })
  )

  it.effect("a frozen standby is not waited for, and can be killed", () =>
    Effect.gen(function* () {
      const { awaitReplayed, primary, replicas } = yield* PgCluster.PgCluster
      const [frozen, other] = replicas as [PgCluster.Node, PgCluster.Node]
      yield* primary.query("create table passed (i int)")
      yield* frozen.freeze
      yield* primary.query("insert into passed values (1)")
      yield* awaitReplayed
      assert.strictEqual(yield* count(other, "passed"), 1)
      yield* frozen.kill
      yield* frozen.start
      yield* awaitReplayed
      assert.strictEqual(yield* count(frozen, "passed"), 1)
    })
  )

  it.effect("stop, start and restart", () =>
    Effect.gen(function* () {
      const { awaitReplayed, nodes, primary } = yield* PgCluster.PgCluster
      for (const node of nodes) {
        yield* node.stop
        yield* node.stop
        assert.isFalse(yield* node.isRunning)
        yield* node.start
        assert.isTrue(yield* node.isRunning)
      }
      const started = "select pg_postmaster_start_time()::text as at"
      const before = yield* primary.query(started)
      yield* primary.restart
      assert.notDeepEqual(yield* primary.query(started), before)
      yield* awaitReplayed
    })
  )

  it.effect("a port that is taken meanwhile is a typed error", () =>
    Effect.gen(function* () {
      const { replicas } = yield* PgCluster.PgCluster
      const node = replicas[1]!
      yield* node.stop
      const squatter = Net.createServer()
      yield* Effect.promise(() => new Promise<void>((resolve) => squatter.listen(node.port, node.host, resolve)))
      const error = yield* Effect.flip(node.start)
      yield* Effect.promise(() => new Promise((resolve) => squatter.close(resolve)))
      assert.strictEqual(error.reason, "PortTaken")
      assert.isFalse(yield* node.isRunning)
      yield* node.start
    })
  )

  it.effect("a refused statement keeps the driver's error as cause", () =>
    Effect.gen(function* () {
      const { replicas } = yield* PgCluster.PgCluster
      const error = yield* Effect.flip(replicas[0]!.query("create table refused ()"))
      assert.strictEqual(error.reason, "QueryFailed")
      assert.propertyVal(error.cause, "code", "25006")
    })
  )
})

describe("a change of primary", () => {
  it.scopedLive("promote, follow, rejoin", () =>
    Effect.gen(function* () {
      const cluster = yield* PgCluster.make({ replicas: 2, database: 'shop\'s "own"', username: "Jo Müller" })
      const { awaitReplayed, currentPrimary, nodes, primary } = cluster
      const [first, second] = cluster.replicas as [PgCluster.Node, PgCluster.Node]
      yield* primary.query("create table history (what text)")
      yield* awaitReplayed
      assert.strictEqual(yield* currentPrimary, primary)
      assert.strictEqual(yield* reason(primary.promote), "NotStandby")
      assert.strictEqual(yield* reason(primary.follow(first)), "Circular")

      yield* primary.kill
      assert.strictEqual(yield* reason(currentPrimary), "NoPrimary")
      assert.strictEqual(yield* reason(first.rejoin(primary)), "NotRunning")
      yield* first.promote
      assert.strictEqual(yield* currentPrimary, first)
      yield* first.query("insert into history values ('promoted')")

      yield* second.follow(first)

      // The old primary comes back and goes its own way: two primaries, of which the promoted one counts.
      yield* primary.start
      yield* primary.query("insert into history values ('lost')")
      assert.strictEqual(yield* currentPrimary, first)
      yield* awaitReplayed

      yield* primary.rejoin(first)
      yield* awaitReplayed
      for (const node of nodes) {
        assert.deepStrictEqual(yield* node.query("select what from history"), [{ what: "promoted" }])
      }

      // And back again, over a restart; the third follows the second's standby.
      yield* primary.restart
      yield* first.stop
      yield* primary.promote
      yield* first.rejoin(primary)
      yield* second.rejoin(first)
      yield* primary.query("insert into history values ('back')")
      yield* awaitReplayed
      for (const node of nodes) assert.strictEqual(yield* count(node, "history"), 2)
    })
  )

  it.scopedLive("a standby that has replayed more than the promoted one cannot follow it", () =>
    Effect.gen(function* () {
      const { awaitReplayed, primary, replicas } = yield* PgCluster.make({ replicas: 2 })
      const [behind, ahead] = replicas as [PgCluster.Node, PgCluster.Node]
      yield* awaitReplayed
      // It must not even receive what it does not replay: promotion replays all that was received.
      yield* behind.stop
      yield* primary.query("create table more (i int)")
      yield* awaitReplayed
      yield* primary.kill
      yield* behind.start
      yield* behind.promote
      assert.strictEqual(yield* reason(ahead.follow(behind)), "Diverged")
      yield* ahead.rejoin(behind)
      assert.strictEqual(yield* reason(ahead.query("select from more")), "QueryFailed")
    })
  )
})
