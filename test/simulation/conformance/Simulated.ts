/** A scenario on simulated servers, in a world of its own. */
import { Reactivity } from "@effect/experimental"
import { Effect, Exit, Logger, Random } from "effect"
import type { Observer } from "../Backend.js"
import { Cluster } from "../Cluster.js"
import { defer, install } from "../Globals.js"
import { rejoin } from "../Nemesis.js"
import { Network } from "../Network.js"
import { database, role } from "../Schema.js"
import type { Server } from "../Server.js"
import { World } from "../World.js"
import { maxConnections, type Node, password, rows, type Scenario, type Site, until } from "./Site.js"

const silent: Observer = { began: () => {}, ran: () => {}, failed: () => {}, logged: () => {}, ended: () => {} }

/** The longest that a scenario may take, in virtual milliseconds. */
const limit = 120_000

const nodeOf = (cluster: Cluster, network: Network, server: Server, name: string): Node => {
  const isUp = Effect.asVoid(
    until(
      Effect.sync(() => server.state),
      (state) => state === "up"
    )
  )
  const stop = Effect.zipRight(
    Effect.sync(() => server.stop()),
    Effect.asVoid(
      until(
        Effect.sync(() => server.state),
        (state) => state === "down"
      )
    )
  )
  return {
    name,
    address: {
      host: server.host,
      port: 5432,
      database,
      user: role,
      password,
      stream: network.streamOf("app")
    },
    pauseReplay: Effect.sync(() => server.setReplayPaused(true)),
    resumeReplay: Effect.sync(() => server.setReplayPaused(false)),
    kill: Effect.sync(() => server.crash("process")),
    freeze: Effect.sync(() => server.freeze()),
    thaw: Effect.sync(() => server.thaw()),
    stop,
    stopToStartSlowly: stop,
    start: Effect.zipRight(
      Effect.sync(() => server.start()),
      isUp
    ),
    promote: Effect.sync(() => server.promote()),
    rejoin: (upstream) =>
      Effect.zipRight(
        Effect.sync(() => {
          const primary = cluster.servers.find(({ host }) => host === upstream.address.host)
          if (primary === cluster.primary) rejoin(cluster, server)
        }),
        Effect.asVoid(
          until(
            Effect.sync(() => server.hasReceiver),
            (has) => has
          )
        )
      ),
    setReadOnly: (isReadOnly) =>
      Effect.sync(() => {
        server.isReadOnly = isReadOnly
      })
  }
}

const siteOf = (cluster: Cluster, network: Network): Site => {
  const [primary, replica, other] = cluster.servers.map((server, i) => nodeOf(cluster, network, server, `n${i + 1}`))
  return {
    primary: primary!,
    replica: replica!,
    other: other!,
    settled: Effect.asVoid(
      until(
        Effect.sync(() => {
          const end = cluster.primary?.end ?? 0
          return cluster.servers.every(
            ({ isStandby, replayed, state }) => !isStandby || state !== "up" || replayed >= end
          )
        }),
        (is) => is
      )
    ),
    setSynchronous: (standbys) => Effect.sync(() => cluster.setSynchronous(standbys)),
    vacuum: Effect.sync(() => cluster.primary?.vacuum())
  }
}

/** What becomes of a scenario. `seed` decides about all that is chance. */
export const simulate = async (scenario: Scenario, seed: string): Promise<Exit.Exit<unknown, unknown>> => {
  const world = new World(seed)
  const network = new Network(world)
  const options = { replicas: 2, synchronous: 0, isAsynchronous: false, isPrivileged: true, maxConnections, rows }
  const cluster = new Cluster(world, network, "db", options, silent)
  let exit: Exit.Exit<unknown, unknown> | undefined
  const uninstall = install(world, false)
  try {
    const fiber = Effect.runFork(
      scenario
        .run(siteOf(cluster, network))
        .pipe(
          Effect.scoped,
          Effect.provide(Reactivity.layer),
          Effect.provide(Logger.remove(Logger.defaultLogger)),
          Effect.withRandom(Random.make(seed))
        )
    )
    fiber.addObserver((end) => {
      exit = end
    })
    await world.run(defer, () => exit !== undefined, limit)
  } catch (error) {
    exit ??= Exit.die(error)
  } finally {
    uninstall()
  }
  return exit!
}
