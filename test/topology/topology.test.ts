import * as Net from "node:net"
import { SqlClient } from "@effect/sql"
import { assert, describe, layer } from "@effect/vitest"
import { Effect, Exit, Layer, Logger, Redacted, Ref, type Scope } from "effect"
import { Consistency, DbRouter, type RouterConfig, RouterError, Topology } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import { eventually } from "../support/engine.js"
import { events, quick, readPorts } from "../support/health.js"

const silent = Logger.replace(Logger.defaultLogger, Logger.none)

/** A list of servers that a test changes. */
const changing = (members: ReadonlyArray<Topology.Member>) =>
  Effect.map(
    Ref.make<Effect.Effect<ReadonlyArray<Topology.Member>, RouterError.TopologyError>>(Effect.succeed(members)),
    (ref) => {
      let reads = 0
      return {
        set: (members: ReadonlyArray<Topology.Member>) => Ref.set(ref, Effect.succeed(members)),
        fail: Ref.set(
          ref,
          Effect.fail(new RouterError.TopologyError({ topology: "test", target: "list", description: "gone" }))
        ),
        reads: () => reads,
        members: Effect.suspend(() => {
          reads++
          return Effect.flatten(Ref.get(ref))
        })
      }
    }
  )

const memberOf = ({ host, name, port }: PgCluster.Node): Topology.Member => ({ host, name, port })

const router = (options: Omit<RouterConfig.Options, "groups"> & { readonly groups?: RouterConfig.Groups }) =>
  Effect.flatMap(PgCluster.PgCluster, ({ primary }) =>
    Layer.build(
      DbRouter.layer({
        groups: { default: [{ name: "first", url: primary.url }] },
        // A flow that has just read on a server stays there until it knows what others have.
        consistency: Consistency.eventual(),
        health: quick,
        shutdownTimeout: "1 second",
        ...options
      })
    )
  )

const engines = Effect.flatMap(DbRouter.DbRouter, ({ status }) =>
  Effect.map(status, (all) => all.map(({ group, name, state }) => `${group} ${name} ${state}`).sort())
)

/** Waits until the engines are these. */
const become = (...expected: ReadonlyArray<string>) =>
  eventually(engines, (found) => found.join() === [...expected].sort().join())

const readsFrom = (nodes: ReadonlyArray<PgCluster.Node>) =>
  Effect.map(DbRouter.replica(readPorts()), (ports) =>
    assert.deepStrictEqual([...ports].sort(), nodes.map(({ port }) => port).sort())
  )

/** A name that leads to a server, and later to another. */
const endpoint = (node: PgCluster.Node) =>
  Effect.gen(function* () {
    let target = node
    const sockets = new Set<Net.Socket>()
    const server = yield* Effect.acquireRelease(
      Effect.async<Net.Server>((resume) => {
        const server = Net.createServer((client) => {
          const upstream = Net.connect(target.port, target.host)
          for (const [one, other] of [
            [client, upstream],
            [upstream, client]
          ] as const) {
            sockets.add(one)
            one.on("error", () => other.destroy())
            one.on("close", () => {
              sockets.delete(one)
              other.destroy()
            })
            one.pipe(other)
          }
        })
        server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
      }),
      (server) =>
        Effect.async<void>((resume) => {
          for (const socket of sockets) socket.destroy()
          server.close(() => resume(Effect.void))
        })
    )
    return {
      port: (server.address() as Net.AddressInfo).port,
      /** New connections go elsewhere; those that are open stay, as with a name that resolves to another address. */
      leadTo: (node: PgCluster.Node) => {
        target = node
      }
    }
  })

const use = <A, E>(
  options: Parameters<typeof router>[0],
  effect: Effect.Effect<A, E, DbRouter.Services | PgCluster.PgCluster | Scope.Scope>
) => Effect.flatMap(router(options), (services) => Effect.provide(effect, services)).pipe(Effect.provide(silent))

layer(PgCluster.layer({ replicas: 2 }), { timeout: "60 seconds", excludeTestServices: true })("a topology", (it) => {
  it.scoped("lists the servers: they join, leave, and are closed when they have left", () =>
    Effect.gen(function* () {
      const { nodes, primary, replicas } = yield* PgCluster.PgCluster
      const list = yield* changing([memberOf(primary), memberOf(replicas[0]!)])
      const topology = Topology.make({ members: list.members, interval: "100 millis" })
      yield* use(
        { topology },
        Effect.gen(function* () {
          const seen = yield* events
          // What the options have at that address is not taken twice, but its name is the list's.
          yield* become("default primary up", "read replica1 up")
          yield* readsFrom([replicas[0]!])
          yield* list.set(nodes.map(memberOf))
          yield* become("default primary up", "read replica1 up", "read replica2 up")
          yield* readsFrom(replicas)
          yield* list.set([memberOf(primary), memberOf(replicas[1]!)])
          yield* become("default primary up", "read replica2 up")
          yield* readsFrom([replicas[1]!])
          yield* eventually(
            replicas[0]!.query("select 1 from pg_stat_activity where application_name like 'effect-db-router%'"),
            (rows) => rows.length === 0
          )
          assert.deepStrictEqual(
            seen.flatMap((event) => (event._tag.startsWith("Engine") ? [`${event._tag} ${event.engine}`] : [])),
            ["EngineAdded replica2", "EngineRemoved replica1"]
          )
        })
      )
    })
  )

  it.scoped("that fails, or is empty, changes nothing; nor does a member that cannot be one", () =>
    Effect.gen(function* () {
      const { nodes, primary } = yield* PgCluster.PgCluster
      const list = yield* changing(nodes.map(memberOf))
      yield* use(
        {
          topology: Topology.make({ members: list.members, interval: "50 millis" }),
          groups: { default: [{ url: primary.url }], other: [{ url: primary.url, name: "taken" }] }
        },
        Effect.gen(function* () {
          const all = ["default primary up", "other taken up", "read replica1 up", "read replica2 up"]
          yield* become(...all)
          for (const change of [
            list.fail,
            list.set([]),
            list.set([...nodes.map(memberOf), { host: primary.host, port: primary.port, name: "taken" }])
          ]) {
            yield* change
            const before = list.reads()
            yield* eventually(Effect.sync(list.reads), (reads) => reads > before + 2)
            yield* become(...all)
          }
        })
      )
    })
  )

  it.scoped("that cannot be read at the start leaves the engines of the options", () =>
    Effect.gen(function* () {
      const { replicas } = yield* PgCluster.PgCluster
      const list = yield* changing([])
      yield* list.fail
      yield* use(
        { topology: Topology.make({ members: list.members, interval: "1 hour" }) },
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          yield* become("default first up")
          assert.lengthOf(yield* sql`SELECT 1`, 1)
          assert.lengthOf(yield* replicas[0]!.query("select 1"), 1)
        })
      )
    })
  )

  it.scoped("from the context takes the place of the option; hosts are asked what they are", () =>
    Effect.gen(function* () {
      const { nodes, primary, replicas } = yield* PgCluster.PgCluster
      const hosts = Topology.hosts([...nodes].reverse().map(({ host, port }) => `${host}:${port}`))
      yield* use(
        {},
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          yield* readsFrom(replicas)
          const [row] = yield* DbRouter.primary(sql<{ port: string }>`SHOW port`)
          assert.strictEqual(Number(row!.port), primary.port)
        })
      ).pipe(Effect.provideService(Topology.Topology, hosts))
    })
  )

  it.scoped("is also read before a session, when the last time was too long ago, and once for all that wait", () =>
    Effect.gen(function* () {
      const { nodes } = yield* PgCluster.PgCluster
      const list = yield* changing(nodes.map(memberOf))
      const topology = Topology.make({
        members: list.members,
        interval: "1 hour",
        beforeSession: "2 seconds"
      })
      yield* use(
        { topology },
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          assert.strictEqual(list.reads(), 1)
          const session = DbRouter.newSession(sql`SELECT 1`)
          yield* Effect.sleep("2100 millis")
          yield* Effect.replicateEffect(session, 10, { concurrency: "unbounded" })
          assert.strictEqual(list.reads(), 2)
          yield* session
          assert.strictEqual(list.reads(), 2)
          yield* sql`SELECT 1`
          yield* Effect.sleep("2100 millis")
          yield* sql`SELECT 1`
          assert.strictEqual(list.reads(), 2)
          yield* session
          assert.strictEqual(list.reads(), 3)
        })
      )
    })
  )

  it.scoped("a member that moves is followed once its new server answers, with all that it has of its own", () =>
    Effect.gen(function* () {
      const { primary, replicas } = yield* PgCluster.PgCluster
      const at = (node: Pick<PgCluster.Node, "host" | "port">, more: Partial<Topology.Member> = {}) => [
        memberOf(primary),
        { host: node.host, port: node.port, name: "reader", ...more }
      ]
      const list = yield* changing(at(replicas[0]!))
      yield* use(
        { topology: Topology.make({ members: list.members, interval: "100 millis" }) },
        Effect.gen(function* () {
          yield* become("default primary up", "read reader up")
          yield* readsFrom([replicas[0]!])
          yield* list.set(at({ host: "127.0.0.1", port: 1 }))
          const before = list.reads()
          yield* eventually(Effect.sync(list.reads), (reads) => reads > before + 2)
          yield* readsFrom([replicas[0]!])
          yield* list.set(at(replicas[1]!, { settings: { applicationName: "moved", maxConnections: 3 } }))
          yield* eventually(
            replicas[1]!.query("select 1 from pg_stat_activity where application_name = 'moved'"),
            (rows) => rows.length > 0
          )
          // The connection is there before the engine has moved, and until it was probed there, reads go to the primary.
          yield* eventually(Effect.exit(readsFrom([replicas[1]!])), Exit.isSuccess)
          yield* become("default primary up", "read reader up")
          const { status } = yield* DbRouter.DbRouter
          assert.strictEqual((yield* status).find(({ name }) => name === "reader")?.pool.max, 3)
        })
      )
    })
  )

  it.scoped("members that take no reads get none", () =>
    Effect.gen(function* () {
      const { primary, replicas } = yield* PgCluster.PgCluster
      const members = [memberOf(primary), memberOf(replicas[0]!), { ...memberOf(replicas[1]!), reads: false }]
      yield* use({ topology: Topology.make({ members: Effect.succeed(members) }) }, readsFrom([replicas[0]!]))
    })
  )

  it.scoped("engines given as Effects run again, and are followed; a password that changes too", () =>
    Effect.gen(function* () {
      const { primary, replicas } = yield* PgCluster.PgCluster
      const url = yield* Ref.make(replicas[0]!.url)
      const reader = Effect.map(Ref.get(url), (url) => ({ name: "reader", url }))
      yield* use(
        {
          groups: { default: [{ url: primary.url }], read: [reader] },
          topology: Topology.resolving({ interval: "100 millis" })
        },
        Effect.gen(function* () {
          yield* readsFrom([replicas[0]!])
          yield* Ref.set(url, Redacted.make("postgres://127.0.0.1:1/nowhere"))
          yield* Effect.sleep("300 millis")
          yield* readsFrom([replicas[0]!])
          yield* Ref.set(url, replicas[1]!.url)
          yield* eventually(Effect.exit(readsFrom([replicas[1]!])), Exit.isSuccess)
        })
      )
    })
  )
})

describe("a name that leads to another server after a promotion", () => {
  layer(PgCluster.layer({ replicas: 1 }), { timeout: "60 seconds", excludeTestServices: true })((it) => {
    it.scoped("is followed: what is connected to the server of before is dropped", () =>
      Effect.gen(function* () {
        const { awaitReplayed, primary, replicas } = yield* PgCluster.PgCluster
        const promoted = replicas[0]!
        yield* primary.query("create table moved (id int)")
        yield* awaitReplayed
        const name = yield* endpoint(primary)
        const url = new URL(Redacted.value(primary.url))
        url.port = String(name.port)
        yield* use(
          {
            groups: { default: [{ name: "writer", url: Redacted.make(url.href) }] },
            waitForPrimary: { statements: "20 seconds" }
          },
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* Effect.replicateEffect(sql`INSERT INTO moved VALUES (1)`, 5, { concurrency: "unbounded" })
            yield* awaitReplayed
            yield* primary.stop
            yield* promoted.promote
            yield* primary.rejoin(promoted)
            // The name still leads to the old one, which is a standby now. What is sent there before that is known may fail.
            yield* become("default writer foreign")
            const late = yield* Effect.fork(sql`INSERT INTO moved VALUES (2)`)
            yield* Effect.sleep("1 second")
            name.leadTo(promoted)
            yield* late
            assert.deepStrictEqual(yield* promoted.query("select count(*)::int as n from moved"), [{ n: 6 }])
          })
        )
      })
    )
  })
})
