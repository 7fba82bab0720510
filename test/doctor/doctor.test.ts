import * as Net from "node:net"
import { assert, layer } from "@effect/vitest"
import { Clock, Effect, Redacted } from "effect"
import { DbRouter, Doctor, type RouterConfig, Topology } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as Pg from "pg"
import * as Proxy from "../support/proxy.js"

const named = (node: PgCluster.Node, engine: Partial<RouterConfig.EngineConfig> = {}) => ({
  url: node.url,
  name: node.name,
  ...engine
})

const optionsFor = (
  { primary, replicas }: Pick<PgCluster.Cluster, "primary" | "replicas">,
  engine: Partial<RouterConfig.EngineConfig> = {}
): RouterConfig.Options => ({
  groups: {
    default: [named(primary, engine)],
    read: replicas.map((replica) => named(replica, engine))
  }
})

/** The same servers as another role. */
const as = (node: PgCluster.Node, user: string): Redacted.Redacted => {
  const url = new URL(Redacted.value(node.url))
  url.username = user
  url.password = "secret"
  return Redacted.make(url.href)
}

const optionsAs = ({ primary, replicas }: PgCluster.Cluster, user: string): RouterConfig.Options => ({
  groups: {
    default: [named(primary, { url: as(primary, user) })],
    read: replicas.map((replica) => named(replica, { url: as(replica, user) }))
  }
})

/** The findings of a report of that level or worse, as `code engine`. */
const found = ({ findings }: Doctor.Report, ...levels: ReadonlyArray<Doctor.Level>): ReadonlyArray<string> =>
  findings
    .filter(({ level }) => levels.includes(level))
    .map(({ code, engine }) => `${code} ${engine ?? "all"}`)
    .sort()

const problems = (report: Doctor.Report) => found(report, "problem")
const notable = (report: Doctor.Report) => found(report, "problem", "warning")

const findingOf = ({ findings }: Doctor.Report, code: Doctor.Code, engine: string): Doctor.Finding =>
  findings.find((finding) => finding.code === code && finding.engine === engine) ??
  assert.fail(`no finding ${code} of ${engine}`)

const serverOf = ({ servers }: Doctor.Report, name: string): Doctor.Server =>
  servers.find((server) => server.name === name) ?? assert.fail(`no server ${name}`)

/** Runs statements first, and others in any case afterwards. */
const during =
  (node: PgCluster.Node, before: ReadonlyArray<string>, after: ReadonlyArray<string>) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>) => {
    const run = (statements: ReadonlyArray<string>) => Effect.forEach(statements, (sql) => node.query(sql))
    return Effect.ensuring(Effect.zipRight(run(before), effect), Effect.orDie(run(after)))
  }

/** A port on this machine whose connections go to the ports that `next` says; until the scope closes. */
const balanced = (next: () => number) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.async<Net.Server>((resume) => {
        const server = Net.createServer((client) => {
          const upstream = Net.connect(next(), "127.0.0.1")
          for (const socket of [client, upstream]) {
            socket.on("error", () => {})
            socket.on("close", () => {
              client.destroy()
              upstream.destroy()
            })
          }
          client.pipe(upstream).pipe(client)
        })
        server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
      }),
      (server) => Effect.async<void>((resume) => void server.close(() => resume(Effect.void)))
    ),
    (server) => (server.address() as Net.AddressInfo).port
  )

const reload = "SELECT pg_reload_conf()"

layer(PgCluster.layer({ replicas: 2 }), { excludeTestServices: true })("the doctor", (it) => {
  it.effect("finds nothing to do where all is well", () =>
    Effect.gen(function* () {
      const cluster = yield* PgCluster.PgCluster
      yield* cluster.awaitReplayed
      const report = yield* Doctor.check(optionsFor(cluster))
      assert.deepStrictEqual(notable(report), [])
      assert.isTrue(report.healthy)
      assert.strictEqual(report.primary, "primary")
      assert.deepStrictEqual(
        report.servers.map(({ group, name, role, state, timeline }) => [name, group, role, state, timeline]),
        [
          ["primary", "default", "primary", "up", 1],
          ["replica1", "read", "replica", "up", 1],
          ["replica2", "read", "replica", "up", 1]
        ]
      )
      const { connections, lag, port, settings, skew, version } = serverOf(report, "replica1")
      assert.strictEqual(port, cluster.replicas[0]!.port)
      assert.match(version ?? "", /^\d+\.\d+$/)
      assert.strictEqual(lag?.bytes, 0)
      assert.strictEqual(connections?.max, 100)
      assert.strictEqual(settings.hot_standby_feedback, "off")
      assert.isBelow(Math.abs(skew!.millis), 1_000)
      const text = Doctor.render(report)
      assert.include(text, "Healthy: 0 problems, 0 warnings; primary takes the writes")
      assert.deepStrictEqual(JSON.parse(JSON.stringify(report)).primary, "primary")
    })
  )

  it.effect("reports a server that is down, and the others all the same", () =>
    Effect.gen(function* () {
      const cluster = yield* PgCluster.PgCluster
      const [replica] = cluster.replicas
      yield* replica!.stop
      const report = yield* Effect.ensuring(Doctor.check(optionsFor(cluster)), Effect.orDie(replica!.start))
      assert.deepStrictEqual(problems(report), ["connect replica1"])
      assert.isFalse(report.healthy)
      assert.deepStrictEqual(
        report.servers.map(({ state }) => state),
        ["up", "down", "up"]
      )
      assert.match(findingOf(report, "connect", "replica1").message, /ECONNREFUSED/)
      assert.include(findingOf(report, "connect", "replica1").remedy ?? "", "Start the server")
    })
  )

  it.effect("waits for one that never answers no longer than connecting may take", () =>
    Effect.gen(function* () {
      const cluster = yield* PgCluster.PgCluster
      const [replica] = cluster.replicas
      yield* replica!.freeze
      const options = optionsFor(cluster, { connectTimeout: "700 millis" })
      const checked = Effect.timeout(Doctor.check(options), "30 seconds")
      const report = yield* Effect.ensuring(checked, Effect.orDie(replica!.thaw))
      assert.deepStrictEqual(problems(report), ["connect replica1"])
      assert.match(findingOf(report, "connect", "replica1").message, /timeout|no answer/)
    })
  )

  it.effect("does not do without a primary that answers", () =>
    Effect.gen(function* () {
      const cluster = yield* PgCluster.PgCluster
      yield* cluster.primary.stop
      const report = yield* Effect.ensuring(Doctor.check(optionsFor(cluster)), Effect.orDie(cluster.primary.start))
      assert.deepStrictEqual(problems(report), ["connect primary", "primary all"])
      assert.isUndefined(report.primary)
      assert.deepStrictEqual(
        report.servers.map(({ state }) => state),
        ["down", "up", "up"]
      )
      assert.include(Doctor.render(report), "no server takes the writes")
      yield* cluster.awaitReplayed
    })
  )

  it.effect("finds the primary wherever it is named", () =>
    Effect.gen(function* () {
      const cluster = yield* PgCluster.PgCluster
      const [one, other] = cluster.replicas
      const report = yield* Doctor.check(optionsFor({ primary: one!, replicas: [other!] }))
      assert.deepStrictEqual(problems(report), ["primary all"])
      assert.isUndefined(report.primary)
      const swapped = yield* Doctor.check(optionsFor({ primary: one!, replicas: [cluster.primary] }))
      assert.isTrue(swapped.healthy)
      assert.strictEqual(swapped.primary, "primary")
      assert.deepStrictEqual(notable(swapped), ["primary primary"])
    })
  )

  it.effect("says how far a replica is behind, and why it does not catch up", () =>
    Effect.gen(function* () {
      const cluster = yield* PgCluster.PgCluster
      const [replica] = cluster.replicas
      yield* replica!.pauseReplay
      yield* cluster.primary.query("CREATE TABLE behind AS SELECT generate_series(1, 1000) AS n")
      const options = optionsFor(cluster)
      const [lenient, strict] = yield* Effect.ensuring(
        Effect.all([
          Doctor.check({ ...options, health: { maxLag: "1 hour" } }),
          Doctor.check({ ...options, health: { maxLag: "500 millis" } })
        ]),
        Effect.orDie(replica!.resumeReplay)
      )
      assert.deepStrictEqual(notable(lenient), ["lag replica1", "replay replica1"])
      assert.deepStrictEqual(problems(lenient), ["replay replica1"])
      const { lag } = serverOf(lenient, "replica1")
      assert.isFalse(lag!.caughtUp)
      assert.isAbove(lag!.bytes, 10_000)
      assert.isAtLeast(lag!.millis, 1_000)
      assert.deepStrictEqual(problems(strict), ["lag replica1", "replay replica1"])
      assert.strictEqual(serverOf(strict, "replica1").state, "lagging")
      yield* cluster.awaitReplayed
      assert.isTrue((yield* Doctor.check(options)).healthy)
    })
  )

  it.scoped("knows servers of another system, and those that claim to be the primary too", () =>
    Effect.gen(function* () {
      const cluster = yield* PgCluster.PgCluster
      const other = yield* PgCluster.make({ replicas: 1 })
      const [standby] = other.replicas
      const foreign = { ...standby!, name: "stranger" }
      const report = yield* Doctor.check(optionsFor({ primary: cluster.primary, replicas: [foreign] }))
      assert.deepStrictEqual(problems(report), ["role stranger"])
      assert.strictEqual(serverOf(report, "stranger").state, "foreign")
      assert.include(findingOf(report, "role", "stranger").message, "system identifier")

      yield* standby!.promote
      const split = yield* Doctor.check(optionsFor(other))
      assert.strictEqual(split.primary, "replica1")
      assert.include(problems(split), "primary primary")
      assert.strictEqual(serverOf(split, "replica1").timeline, 2)
    })
  )

  it.effect("asks a group to bind to, which may be any server", () =>
    Effect.gen(function* () {
      const cluster = yield* PgCluster.PgCluster
      const { groups } = optionsFor(cluster)
      const nowhere = { host: "127.0.0.1", port: 1, username: "a", name: "nowhere" }
      const report = yield* Doctor.check({ groups: { ...groups, archive: [nowhere] } })
      assert.deepStrictEqual(problems(report), ["connect nowhere"])
      const standby = named(cluster.replicas[0]!, { name: "reports" })
      const bound = yield* Doctor.check({ groups: { ...groups, analytics: [standby] } })
      assert.deepStrictEqual(notable(bound), [])
      const large = yield* Doctor.check({ groups: { ...groups, analytics: [{ ...standby, maxConnections: 88 }] } })
      assert.deepStrictEqual(problems(large), [])
      const larger = yield* Doctor.check({ groups: { ...groups, analytics: [{ ...standby, maxConnections: 90 }] } })
      assert.deepStrictEqual(problems(larger), ["connections replica1"])
      assert.include(
        findingOf(larger, "connections", "replica1").message,
        "replica1 and reports may open 102 connections"
      )
      const twice = yield* Doctor.check({ groups: { default: groups.default!, read: [standby, ...groups.read!] } })
      assert.deepStrictEqual(notable(twice), ["same-server replica1"])
    })
  )

  it.effect("reads the topology, and engines that are Effects", () =>
    Effect.gen(function* () {
      const { nodes, primary } = yield* PgCluster.PgCluster
      const topology = Topology.hosts(nodes.map(({ host, name, port }) => ({ host, port, name })))
      const report = yield* Doctor.check({ groups: { default: [named(primary)] }, topology })
      assert.deepStrictEqual(
        report.servers.map(({ name, state }) => [name, state]),
        nodes.map(({ name }) => [name, "up"])
      )
      const broken = Topology.make({ members: Effect.fail(new Error("no registry")) })
      const without = yield* Doctor.check({ groups: { default: [named(primary)] }, topology: broken })
      assert.deepStrictEqual(problems(without), ["topology all"])
      assert.strictEqual(without.primary, "primary")
      const vault = Effect.fail(new Error("Tr0ub4dor"))
      const failed = yield* Doctor.check({ groups: { default: [named(primary)], read: [vault] } })
      assert.deepStrictEqual(problems(failed), ["configuration read-1"])
      assert.notInclude(JSON.stringify(failed), "Tr0ub4dor")
    })
  )

  it.effect("tells a role without privileges which ones it needs, and which would help", () =>
    Effect.gen(function* () {
      const cluster = yield* PgCluster.PgCluster
      const { primary } = cluster
      const options = optionsAs(cluster, "plain")
      yield* primary.query("CREATE ROLE plain LOGIN PASSWORD 'secret'")
      yield* cluster.awaitReplayed
      const poor = yield* Doctor.check(options)
      assert.isTrue(poor.healthy)
      assert.deepStrictEqual(notable(poor), ["statistics replica1", "statistics replica2"])
      assert.include(findingOf(poor, "statistics", "replica1").remedy ?? "", "GRANT pg_read_all_stats TO plain")
      assert.isFalse(serverOf(poor, "primary").isSuperuser)

      yield* primary.query("GRANT pg_read_all_stats TO plain")
      const refused = yield* Effect.zipRight(cluster.awaitReplayed, Doctor.check(options)).pipe(
        during(
          primary,
          ["REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC"],
          ["GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC"]
        )
      )
      assert.deepStrictEqual(
        notable(refused),
        ["primary all", "privileges primary", "privileges replica1", "privileges replica2"].sort()
      )
      assert.deepStrictEqual(serverOf(refused, "replica1").refusedFunctions, ["pg_control_system()"])
      assert.include(
        findingOf(refused, "privileges", "primary").remedy ?? "",
        "GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() TO plain"
      )
      yield* cluster.awaitReplayed
      assert.deepStrictEqual(notable(yield* Doctor.check(options)), [])
    })
  )

  it.effect("counts the pools of all processes against what there is room for", () =>
    Effect.gen(function* () {
      const cluster = yield* PgCluster.PgCluster
      const { primary } = cluster
      const many = yield* Doctor.check(optionsFor(cluster), { instances: 10 })
      assert.deepStrictEqual(problems(many), ["connections primary", "connections replica1", "connections replica2"])
      assert.match(findingOf(many, "connections", "primary").message, /may open 110 connections .* room for 100/)
      assert.include(notable(many), "tokens all")

      // 99 connections of the pools, and two of another program.
      const clients = yield* Effect.forEach([1, 2], () =>
        Effect.promise(async () => {
          const client = new Pg.Client({ connectionString: Redacted.value(primary.url) })
          await client.connect()
          return client
        })
      )
      const tight = yield* Effect.ensuring(
        Doctor.check(optionsFor(cluster), { instances: 9 }),
        Effect.promise(() => Promise.all(clients.map((client) => client.end())))
      )
      assert.include(found(tight, "warning"), "connections primary")
      assert.deepStrictEqual(problems(tight), [])

      yield* primary.query("CREATE ROLE few LOGIN PASSWORD 'secret' CONNECTION LIMIT 8 IN ROLE pg_read_all_stats")
      yield* cluster.awaitReplayed
      const few = yield* Doctor.check(optionsAs(cluster, "few"))
      assert.include(problems(few), "connections primary")
      assert.match(findingOf(few, "connections", "primary").message, /room for 8 \(the limit of the role\)/)
      const wrong = yield* Effect.flip(Doctor.check(optionsFor(cluster), { instances: 0.5 }))
      assert.strictEqual(wrong.field, "instances")
    })
  )

  it.effect("knows the settings that matter", () =>
    Effect.gen(function* () {
      const cluster = yield* PgCluster.PgCluster
      const { primary } = cluster
      yield* primary.query("CREATE ROLE odd LOGIN PASSWORD 'secret' IN ROLE pg_read_all_stats")
      yield* primary.query("ALTER ROLE odd SET default_transaction_isolation = 'serializable'")
      yield* primary.query("ALTER ROLE odd SET default_transaction_read_only = on")
      yield* primary.query("ALTER ROLE odd SET idle_session_timeout = '9s'")
      yield* cluster.awaitReplayed
      const report = yield* Doctor.check(optionsAs(cluster, "odd"))
      assert.deepStrictEqual(notable(report), [
        "idle-timeout primary",
        "idle-timeout replica1",
        "idle-timeout replica2",
        "isolation replica1",
        "isolation replica2",
        "read-only primary"
      ])
      assert.deepStrictEqual(problems(report), ["read-only primary"])
      assert.strictEqual(serverOf(report, "replica1").state, "up")
    })
  )

  it.effect("knows what replicas do with reads that are in the way, and what commits wait for", () =>
    Effect.gen(function* () {
      const cluster = yield* PgCluster.PgCluster
      const { primary, replicas } = cluster
      const [one, other] = replicas
      const set = (node: PgCluster.Node, setting: string) =>
        Effect.zipRight(node.query(`ALTER SYSTEM SET ${setting}`), node.query(reload))
      const resetAll = Effect.forEach(cluster.nodes, (node) =>
        Effect.zipRight(node.query("ALTER SYSTEM RESET ALL"), node.query(reload))
      )
      const expected = ["conflicts replica1", "conflicts replica2", "synchronous primary"]
      const report = yield* Effect.gen(function* () {
        yield* set(one!, "max_standby_streaming_delay = -1")
        yield* set(other!, "max_standby_streaming_delay = 0")
        yield* set(primary, "synchronous_standby_names = 'missing'")
        // A server reads its files a moment later.
        return yield* Effect.repeat(Doctor.check(optionsFor(cluster)), {
          until: (report) => notable(report).length >= expected.length,
          times: 50
        })
      }).pipe(Effect.ensuring(Effect.orDie(resetAll)))
      assert.deepStrictEqual(notable(report), expected)
      assert.deepStrictEqual(problems(report), ["synchronous primary"])
      assert.include(findingOf(report, "conflicts", "replica1").message, "holds up replay")
      assert.include(findingOf(report, "conflicts", "replica2").message, "ended after 0 ms")

      const idle = yield* Effect.gen(function* () {
        yield* set(one!, "hot_standby_feedback = on")
        yield* set(one!, "wal_receiver_status_interval = 0")
        return yield* Effect.repeat(Doctor.check(optionsFor(cluster)), {
          until: (report) => found(report, "warning").includes("feedback replica1"),
          times: 50
        })
      }).pipe(Effect.ensuring(Effect.orDie(resetAll)))
      assert.deepStrictEqual(notable(idle), ["feedback replica1"])
    })
  )

  it.effect("misses encryption where the network begins", () =>
    Effect.gen(function* () {
      const { database, password, primary, username } = yield* PgCluster.PgCluster
      // The name of another machine, that leads here.
      const stream = () => {
        const socket = new Net.Socket()
        const connect = socket.connect.bind(socket)
        return Object.assign(socket, { connect: () => connect(primary.port, primary.host) })
      }
      const engine = { name: "far", host: "db.example", port: 5432, database, username, password, stream }
      const report = yield* Doctor.check({ groups: { default: [engine] } })
      assert.deepStrictEqual(notable(report), ["encryption far"])
    })
  )

  it.effect("compares the clocks", () =>
    Effect.gen(function* () {
      const cluster = yield* PgCluster.PgCluster
      const real = Clock.make()
      const fast: Clock.Clock = Object.assign(Object.create(real), {
        unsafeCurrentTimeMillis: () => real.unsafeCurrentTimeMillis() + 60_000,
        currentTimeMillis: Effect.map(real.currentTimeMillis, (millis) => millis + 60_000)
      })
      const report = yield* Effect.withClock(Doctor.check(optionsFor(cluster)), fast)
      assert.deepStrictEqual(notable(report), ["clock primary", "clock replica1", "clock replica2"])
      const { skew } = serverOf(report, "primary")
      assert.approximately(skew!.millis, -60_000, 5_000)
      assert.include(findingOf(report, "clock", "primary").message, "behind this machine's")
      assert.isTrue(report.healthy)
    })
  )

  it.scoped("notices what stands before a server", () =>
    Effect.gen(function* () {
      const cluster = yield* PgCluster.PgCluster
      const { primary } = cluster
      const proxy = yield* Proxy.make(primary)
      // As PgBouncer does, it announces a process of its own for requests to cancel.
      proxy.onMessage = (type, body) => {
        if (type === "K") body.writeInt32BE(12_345, 0)
        return undefined
      }
      const url = new URL(Redacted.value(primary.url))
      url.port = String(proxy.port)
      const options = { groups: { default: [named(primary, { url: Redacted.make(url.href), maxConnections: 500 })] } }
      const report = yield* Doctor.check(options)
      assert.deepStrictEqual(notable(report), ["proxy primary"])
      assert.isTrue(serverOf(report, "primary").isProxied)
      assert.include(findingOf(report, "proxy", "primary").remedy ?? "", "DB_ROUTER_PREPARE=false")
      assert.deepStrictEqual(notable(yield* Doctor.check({ ...options, prepare: false })), [])
    })
  )

  it.scoped("notices a replica that is connected to another database", () =>
    Effect.gen(function* () {
      const { primary, replicas } = yield* PgCluster.PgCluster
      const url = new URL(Redacted.value(replicas[0]!.url))
      url.pathname = "/template1"
      const report = yield* Doctor.check({
        groups: { default: [named(primary)], read: [{ name: "reader", url: Redacted.make(url.href) }] }
      })
      assert.deepStrictEqual(notable(report), ["database reader"])
      assert.include(findingOf(report, "database", "reader").message, "the database template1, the primary to postgres")
    })
  )

  it.scoped("notices an address that leads to several servers", () =>
    Effect.gen(function* () {
      const cluster = yield* PgCluster.PgCluster
      const { primary, replicas } = cluster
      // Each new connection has the next server.
      let connections = 0
      const port = yield* balanced(() => replicas[connections++ % replicas.length]!.port)
      const url = new URL(Redacted.value(replicas[0]!.url))
      url.port = String(port)
      yield* cluster.awaitReplayed
      const options = {
        groups: { default: [named(primary)], read: [{ name: "reader", url: Redacted.make(url.href) }] }
      }
      const report = yield* Doctor.check(options)
      assert.deepStrictEqual(notable(report), ["balancer reader"])
      assert.include(findingOf(report, "balancer", "reader").message, "have met 2")
      assert.deepStrictEqual(
        report.servers.map(({ isBalanced }) => isBalanced),
        [false, true]
      )
    })
  )

  it.scoped("explains where statements would go", () =>
    Effect.gen(function* () {
      const cluster = yield* PgCluster.PgCluster
      const statements = yield* Doctor.statementsOf(
        "SELECT 'ä;' AS a; -- first; not\n/* b; */ INSERT INTO t VALUES (1);\nSELECT nextval('s')\n"
      )
      assert.deepStrictEqual(
        statements.map((sql) => sql.replace(/^(?:--.*\n|\/\*.*?\*\/|\s)+/, "")),
        ["SELECT 'ä;' AS a", "INSERT INTO t VALUES (1)", "SELECT nextval('s')"]
      )
      assert.deepStrictEqual(yield* Doctor.statementsOf("SELEKT 1; SELECT 2"), ["SELEKT 1; SELECT 2"])
      assert.deepStrictEqual(yield* Doctor.statementsOf(" \n"), [])
      const explained = yield* Effect.provide(Doctor.explain(statements), DbRouter.layer(optionsFor(cluster)))
      assert.deepStrictEqual(
        explained.map(({ route }) => [route?.group, route?.kind]),
        [
          ["read", "read"],
          ["default", "write"],
          ["default", "write"]
        ]
      )
      const text = Doctor.renderExplained(explained)
      assert.match(text, /→ read\/replica[12] \(read: /)
      assert.include(text, "→ default/primary (write: calls nextval)")
    })
  )
})
