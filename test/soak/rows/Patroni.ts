/** A real Patroni cluster: a switchover, then a failover, with the topology read from Patroni and by role alone. */
import { FetchHttpClient } from "@effect/platform"
import { Effect, Layer } from "effect"
import { DbRouter, type RouterConfig, Topology } from "effect-db-router"
import { schema } from "../Load.js"
import type { Pace } from "../Pace.js"
import * as Patroni from "../Patroni.js"
import * as Rig from "../Rig.js"
import { type Check, type ExternalRow, none, seconds, together } from "../Row.js"
import { health } from "../Servers.js"
import { noFailedRead } from "./Killed.js"
import { nextWrite, onlyInFlight, recovered } from "./Promotion.js"

/** Reads go to a server again so soon after Patroni says that it follows. */
const returns = (member: Patroni.Member, ready: number, answered: number): Check => ({
  measured: `${member.name} answers reads ${seconds(answered - ready)} after it follows`,
  met: true
})

const options = (cluster: Patroni.Cluster, pace: Pace, applicationName: string): RouterConfig.Options => ({
  groups: {
    default: [
      {
        url: cluster.members[0]!.url,
        name: cluster.members[0]!.name,
        applicationName,
        connectTimeout: pace.connectTimeout,
        maxConnections: 10
      }
    ]
  },
  health: health(pace),
  // Patroni takes its time until it is sure that the leader is gone.
  waitForPrimary: { statements: "1 minute" },
  shutdownTimeout: "5 seconds"
})

interface Source {
  readonly name: string
  readonly layer: (cluster: Patroni.Cluster, pace: Pace) => Layer.Layer<Topology.Topology, unknown>
}

const sources: ReadonlyArray<Source> = [
  {
    name: "read from Patroni",
    layer: ({ members }, { interval }) =>
      Topology.layerPatroni({ urls: members.map(({ host, rest }) => `http://${host}:${rest}`), interval }).pipe(
        Layer.provide(FetchHttpClient.layer)
      )
  },
  {
    name: "by role alone",
    layer: ({ members }) =>
      Layer.succeed(Topology.Topology, Topology.hosts(members.map(({ host, name, port }) => ({ host, name, port }))))
  }
]

/** When a member first takes writes. */
const promotionOf = (member: Patroni.Member) =>
  Effect.map(Effect.repeat(Effect.delay(member.isPrimary, "5 millis"), { until: (isPrimary) => isPrimary }), () =>
    performance.now()
  )

/** When a server has ended the connections that it had. */
const endOf = (member: Patroni.Member) =>
  Effect.map(Effect.ignore(member.query("SELECT pg_sleep(600)")), () => performance.now())

/** Has another member take the place of the leader, and measures until all of them serve again. */
const change = (
  rig: Rig.Rig,
  cluster: Patroni.Cluster,
  what: string,
  act: (leader: Patroni.Member, standby: Patroni.Member) => Effect.Effect<unknown, unknown>,
  comeBack: (leader: Patroni.Member) => Effect.Effect<unknown>
) =>
  Effect.gen(function* () {
    const { load, pace } = rig
    const { leader, standby } = yield* cluster.ready
    load.tally.begin(what)
    const from = load.tally.failures.length
    const ended = yield* Effect.fork(endOf(leader))
    const promotion = yield* Effect.fork(promotionOf(standby))
    yield* Effect.sleep("100 millis")
    yield* act(leader, standby)
    const broken = yield* ended
    const promoted = yield* promotion
    const written = yield* nextWrite(load)
    const first = load.ledger.upcoming
    yield* comeBack(leader)
    yield* cluster.ready
    const follows = performance.now()
    const answered = yield* load.answerFrom(leader.port)
    yield* Effect.sleep(pace.steady)
    const audit = yield* load.ledger.audit(standby)
    const strays = yield* straysOn(leader, standby, first)
    const [missing, ...rest] = audit
    return together(what, [
      ...onlyInFlight(rig, broken, from),
      recovered(rig, written, promoted),
      missing!,
      ...rest.filter(({ met }) => !met),
      strays,
      returns(leader, follows, answered)
    ])
  })

/** Writes that are on the old primary and not on the new one, though that one was there. */
const straysOn = (old: Patroni.Member, now: Patroni.Member, first: number) =>
  Effect.gen(function* () {
    const ids = (member: Patroni.Member) =>
      Effect.map(member.query<{ id: number }>("SELECT id::int AS id FROM ledger WHERE id >= $1", [first]), (rows) =>
        rows.map(({ id }) => id)
      )
    // What the old one has, it has from the new one: which has at least as much when it is asked later.
    const there = yield* ids(old)
    const known = new Set(yield* ids(now))
    const strays = there.filter((id) => !known.has(id))
    return none("writes on the old primary only", strays.length, [`ids ${strays.slice(0, 20).join(", ")}`])
  })

const measure = (cluster: Patroni.Cluster, pace: Pace, source: Source) =>
  Rig.run(
    {
      name: "patroni",
      pace,
      router: (name) => options(cluster, pace, name),
      layer: (given) => Layer.provide(DbRouter.layer(given), source.layer(cluster, pace)),
      servers: Effect.map(cluster.ready, ({ leader }) => ({ running: cluster.members, primary: leader }))
    },
    (rig) =>
      Effect.gen(function* () {
        const switched = yield* change(
          rig,
          cluster,
          `${source.name}: switchover`,
          (leader, standby) => cluster.switchover(leader, standby),
          () => Effect.void
        )
        const failed = yield* change(
          rig,
          cluster,
          `${source.name}: failover`,
          (leader) => leader.kill,
          (leader) => leader.start
        )
        return [switched, failed, noFailedRead(rig)]
      })
  )

export const row: ExternalRow = {
  name: "patroni",
  fault: "a real Patroni cluster (Debian's patroni and etcd-server): switchover, then failover",
  mustShow: "the same as promotion above, with the topology read from Patroni, and again with discovery by role alone",
  whyNot: Patroni.whyNot,
  run: (pace) =>
    Effect.gen(function* () {
      const cluster = yield* Patroni.make
      const { leader } = yield* cluster.ready
      for (const sql of schema) yield* leader.query(sql)
      const all = yield* Effect.forEach(sources, (source) => Effect.scoped(measure(cluster, pace, source)))
      return { figures: all.flatMap(({ figures }) => figures), always: all.flatMap(({ always }) => always) }
    })
}
