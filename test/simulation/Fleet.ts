/**
 * A day of a fleet, in a few minutes of virtual time: many routers, each a process of its own, on one cluster. They start, have
 * steady traffic, lose the primary, get it back as a replica, a third of them restart, and in the end all are idle.
 */
import { Reactivity } from "@effect/experimental"
import { Cause, Duration, Effect, Exit, Fiber, Logger, Random, Redacted, Scope } from "effect"
import { DbRouter } from "effect-db-router"
import type { Chance } from "./Chance.js"
import { Cluster } from "./Cluster.js"
import { type Connections, Meter, type Peak, type Purpose } from "./FleetMeter.js"
import { defer, install } from "./Globals.js"
import { rejoin } from "./Nemesis.js"
import { Network } from "./Network.js"
import { password } from "./Scram.js"
import type { Server } from "./Server.js"
import type { Change } from "./Store.js"
import { World } from "./World.js"

export interface Options {
  readonly seed: string
  readonly routers: number
  readonly replicas: number
  /** Requests of each router a second: four of five read one row, one writes one and reads another. */
  readonly rate: number
  /** Of each pool. */
  readonly maxConnections: number
  /** How long the traffic is steady, in seconds, before the primary fails. */
  readonly steady: number
}

export interface Figures {
  readonly options: Options
  readonly requests: number
  readonly failed: number
  /** Virtual seconds. */
  readonly time: number
  readonly idle: { readonly connections: Connections; readonly statements: Readonly<Record<Purpose, number>> }
  readonly load: { readonly connections: Connections; readonly statements: Readonly<Record<Purpose, number>> }
  readonly failover: {
    readonly connections: Connections
    /** Attempts to connect in any 100 ms, and in any second. */
    readonly attempts: { readonly tenth: Peak; readonly second: Peak }
    /** From the promotion until 99% of the routers have written on the new primary, in milliseconds. */
    readonly wrote: number | undefined
  }
  readonly comeBack: {
    /** What share of the reads the replica that has come back has had, in each second since it answers. */
    readonly shares: ReadonlyArray<number>
    /** What it would have if all had the same. */
    readonly fair: number
  }
  readonly deploy: {
    readonly connections: Connections
    readonly attempts: { readonly tenth: Peak; readonly second: Peak }
  }
}

const accounts = 1000

const rows: ReadonlyArray<Change> = [
  ...Array.from({ length: accounts }, (_, i) => ({
    table: "account",
    key: String(i + 1),
    row: { id: i + 1, balance: 0 }
  })),
  ...Array.from({ length: 6 }, (_, i) => ({
    table: "register",
    key: String(i + 1),
    row: { id: i + 1, value: "", writes: 0 }
  }))
]

/** How long each part takes, in seconds. */
const seconds = {
  start: 5,
  warm: 6,
  /** From the crash of the primary to the promotion of a replica. */
  leaderless: 3,
  afterPromotion: 10,
  comeBack: 25,
  deploy: 10,
  /** Longer than an idle connection stays open. */
  idle: 16
}

/** How often the connections are counted, in milliseconds. */
const sampling = 250

class Fleet {
  readonly world: World
  readonly meter: Meter
  private readonly network: Network
  private readonly cluster: Cluster
  private readonly chance: Chance
  private requests = 0
  private failed = 0

  constructor(private readonly options: Options) {
    this.world = new World(options.seed)
    this.chance = this.world.chance.fork("fleet")
    this.network = new Network(this.world)
    this.meter = new Meter(this.world)
    this.cluster = new Cluster(
      this.world,
      this.network,
      "db",
      {
        replicas: options.replicas,
        synchronous: 0,
        isAsynchronous: false,
        isPrivileged: true,
        maxConnections: 100_000,
        rows
      },
      this.meter.observer
    )
  }

  private engineOf(client: string) {
    const { maxConnections } = this.options
    return ({ host }: Server) => ({
      name: host,
      host,
      port: 5432,
      database: "shop",
      username: "app",
      password: Redacted.make(password),
      applicationName: client,
      stream: (() => {
        const socket = this.network.streamOf(client)()
        const connect = socket.connect.bind(socket)
        return Object.assign(socket, {
          connect: (port: number, host: string) => {
            this.meter.connects(client)
            return connect(port, host)
          }
        })
      }) as never,
      maxConnections
    })
  }

  /** One process, from its start to its end. */
  private process(client: string): Effect.Effect<Effect.Effect<void>, never, Reactivity.Reactivity> {
    return Effect.gen(this, function* () {
      const scope = yield* Scope.make()
      const [first, ...others] = this.cluster.servers.map(this.engineOf(client))
      const router = yield* DbRouter.make({
        groups: { default: [first!], read: others },
        metrics: false,
        waitForPrimary: { atStart: Duration.seconds(30) }
      }).pipe(Scope.extend(scope), Effect.orDie)
      const sql = router.client
      const chance = this.chance.fork(client)
      const read = Effect.suspend(() =>
        sql.unsafe("SELECT $1::text AS op, id FROM register WHERE id = $2", ["f", 1 + chance.below(6)])
      )
      const write = Effect.suspend(() =>
        sql.unsafe("UPDATE account SET balance = balance + 1 WHERE id = $1", [1 + chance.below(accounts)])
      )
      const request = Effect.suspend(() => (chance.is(0.8) ? read : Effect.zipRight(write, read)))
      const one = Effect.suspend(() => {
        this.requests++
        return Effect.onError(request, (cause) =>
          Effect.sync(() => {
            if (!Cause.isInterruptedOnly(cause)) this.failed++
          })
        )
      }).pipe(Effect.ignore)
      const traffic = yield* Effect.suspend(() =>
        this.isLoaded
          ? Effect.zipRight(Effect.sleep((1000 / this.options.rate) * chance.between(0.5, 1.5)), Effect.fork(one))
          : Effect.sleep(100 * chance.between(0.5, 1.5))
      ).pipe(Effect.forever, Effect.forkDaemon)
      return Effect.zipRight(Fiber.interrupt(traffic), Scope.close(scope, Exit.void))
    })
  }

  private isLoaded = false

  readonly program: Effect.Effect<Figures, never, Reactivity.Reactivity> = Effect.gen(this, function* () {
    const { cluster, meter, options, world } = this
    const wait = (seconds: number) => Effect.sleep(seconds * 1000)
    const sampler = yield* Effect.forkDaemon(
      Effect.forever(
        Effect.delay(
          Effect.sync(() => meter.sample(cluster.servers)),
          sampling
        )
      )
    )
    const clients = Array.from({ length: options.routers }, (_, i) => `app${i + 1}`)
    const starting = (client: string, within: number) =>
      Effect.delay(this.process(client), this.chance.between(0, within * 1000))
    const all = yield* Effect.forEach(clients, (client) => starting(client, seconds.start), {
      concurrency: "unbounded"
    })
    this.isLoaded = true
    yield* wait(seconds.warm)
    const loaded = world.now
    yield* wait(options.steady)
    const crashed = world.now
    const [old, next] = [cluster.servers[0]!, cluster.servers[1]!]
    old.crash("process")
    yield* wait(seconds.leaderless)
    const promoted = world.now
    next.promote()
    for (const server of cluster.servers.slice(2)) rejoin(cluster, server)
    yield* wait(seconds.afterPromotion)
    const settled = world.now
    rejoin(cluster, old)
    while (old.state !== "up") yield* Effect.sleep(10)
    const back = world.now
    yield* wait(seconds.comeBack)
    const deployed = world.now
    const restarted = Math.floor(options.routers / 3)
    const restart = (close: Effect.Effect<void>, i: number) =>
      Effect.sleep(this.chance.between(0, seconds.deploy * 600)).pipe(
        Effect.zipRight(close),
        Effect.zipRight(this.process(`${clients[i]} again`))
      )
    const again = yield* Effect.forEach(all.slice(0, restarted), restart, { concurrency: "unbounded" })
    yield* Effect.sleep(Math.max(0, deployed + seconds.deploy * 1000 - world.now))
    const quiet = world.now
    this.isLoaded = false
    yield* wait(seconds.idle)
    const end = world.now
    yield* Fiber.interrupt(sampler)
    const closing = [...again, ...all.slice(restarted)]
    yield* Effect.forEach(closing, (close) => close, { concurrency: "unbounded", discard: true })
    const attempts = (from: number, to: number) => ({
      tenth: meter.peak(from, to, 100),
      second: meter.peak(from, to, 1000)
    })
    return {
      options,
      requests: this.requests,
      failed: this.failed,
      time: end / 1000,
      idle: { connections: meter.connections(end - 3000, end), statements: meter.statements(end - 4000, end) },
      load: { connections: meter.connections(loaded, crashed), statements: meter.statements(loaded, crashed) },
      failover: {
        connections: meter.connections(crashed, settled),
        attempts: attempts(crashed, settled),
        wrote: meter.wroteWithin(next.host, promoted, options.routers, 0.99)
      },
      comeBack: { shares: meter.shares(old.host, back, deployed), fair: 1 / options.replicas },
      deploy: { connections: meter.connections(deployed, quiet), attempts: attempts(deployed, quiet) }
    }
  })
}

/** The longest that a day may take, in virtual milliseconds. */
const limit = 600_000

/** Runs a day of a fleet. */
export const runFleet = async (options: Options): Promise<Figures> => {
  const fleet = new Fleet(options)
  const uninstall = install(fleet.world, false)
  try {
    let exit: Exit.Exit<Figures> | undefined
    Effect.runFork(
      fleet.program.pipe(
        Effect.provide(Reactivity.layer),
        Effect.provide(Logger.remove(Logger.defaultLogger)),
        Effect.withRandom(Random.make(options.seed))
      )
    ).addObserver((ended) => {
      exit = ended
    })
    await fleet.world.run(defer, () => exit !== undefined, limit)
    if (exit === undefined || Exit.isFailure(exit)) {
      throw new Error(exit === undefined ? "The day has not ended" : Cause.pretty(exit.cause))
    }
    return exit.value
  } finally {
    uninstall()
  }
}
