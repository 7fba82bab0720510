/**
 * The common part of all rows: a router under load, and what has to hold whatever happens to the servers. No connection
 * stays behind, memory does not grow, no promise is broken, nothing hangs, and the process ends without force.
 */
import { Context, Effect, Exit, Layer, Logger, LogLevel, Scope } from "effect"
import { DbRouter, type RouterConfig } from "effect-db-router"
import type { PgCluster } from "effect-db-router/testing"
import * as Memory from "../bench/Memory.js"
import * as Load from "./Load.js"
import * as Machine from "./Machine.js"
import type { Pace } from "./Pace.js"
import { type Check, count, type Measured, none } from "./Row.js"
import { connections, options as overAll, type Server } from "./Servers.js"
import { kinds } from "./Tally.js"
import * as Trouble from "./Trouble.js"

/** A router under load. */
export interface Rig {
  readonly router: DbRouter.DbRouter
  readonly load: Load.Load
  readonly pace: Pace
  readonly machine: Machine.Machine
  readonly applicationName: string
  /** Runs an effect with the router and its client. */
  readonly use: <A, E>(effect: Effect.Effect<A, E, DbRouter.Services>) => Effect.Effect<A, E>
}

export interface Options extends Load.Reads {
  readonly pace: Pace
  /** The name of the row. */
  readonly name: string
  readonly router: (applicationName: string) => RouterConfig.Options
  /** Whether nothing else in this process opens sockets meanwhile, so that they can be counted. Default: `true`. */
  readonly isAlone?: boolean
  /** More services for the router's layer. */
  readonly layer?: (options: RouterConfig.Options) => Layer.Layer<DbRouter.Services, unknown>
  /** The servers whose connections are counted at the end, and the one that the writes are compared with. */
  readonly servers: Effect.Effect<{ readonly running: ReadonlyArray<Server>; readonly primary: Server }, unknown>
}

/** A router over all servers of a cluster that keeps its primary. */
export const on = (cluster: PgCluster.Cluster, pace: Pace, name: string): Options => ({
  name,
  pace,
  router: (applicationName) => overAll(cluster, pace, applicationName),
  servers: Effect.succeed({ running: cluster.nodes, primary: cluster.primary })
})

/** So much more memory in use, after a collection, is noise: caches that fill, code that is compiled. In megabytes. */
const memoryNoise = 6

/** How long what still runs may take to end, beyond the router's own limits. */
const endLimit = 20_000

let rigs = 0

const log = process.env.SOAK_LOG === undefined ? LogLevel.None : LogLevel.Debug

/** Runs a load on a router, and `body` when it is warm; tells what `body` has found, and what holds always. */
export const run = <E>(
  options: Options,
  body: (rig: Rig) => Effect.Effect<ReadonlyArray<Check>, E, Scope.Scope>
): Effect.Effect<Measured, unknown, Scope.Scope> =>
  Effect.gen(function* () {
    const { name, pace } = options
    const applicationName = `soak-${process.pid}-${++rigs}-${name}`
    const trouble = yield* Trouble.watch
    const machine = yield* Machine.watch
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
    const sockets = openSockets()
    const context = yield* Layer.buildWithScope(
      (options.layer ?? DbRouter.layer)(options.router(applicationName)),
      scope
    )
    const load = yield* Scope.extend(Effect.provide(Load.start(pace.rest, options), context), scope)
    const rig: Rig = {
      router: Context.get(context, DbRouter.DbRouter),
      load,
      pace,
      machine,
      applicationName,
      use: (effect) => Effect.provide(effect, context)
    }
    yield* Effect.zipRight(load.more(warmUp), Effect.sleep(pace.steady))
    const before = yield* idleMemory(load)
    const figures = yield* Effect.scoped(body(rig))
    load.tally.begin("end")
    yield* load.more(warmUp)
    const hanging = yield* load.pause(endLimit)
    const memory = yield* idleMemory(load)
    yield* load.pause(endLimit)
    const pools = yield* unwhole(rig)
    yield* Scope.close(scope, Exit.void)
    const { primary, running } = yield* options.servers
    const always = [
      none("statements without an end", hanging),
      pools,
      ...(yield* load.ledger.audit(primary)),
      yield* replicated(load, running),
      yield* leaks(running, applicationName),
      ...(options.isAlone === false ? [] : [yield* left(sockets)]),
      none("rejections unhandled, exceptions uncaught, warnings of the process", trouble.length, trouble),
      grown(memory - before)
    ]
    return { figures: [...figures, ...volume(load)], always }
  }).pipe(Effect.provide(Logger.minimumLogLevel(log)))

/** Operations after which everything has been used: prepared statements, pools, caches. */
const warmUp = 200

/** The memory in use while nothing runs. What has a finalizer goes only with a later collection. */
const idleMemory = (load: Load.Load) =>
  Effect.gen(function* () {
    yield* load.pause(endLimit)
    const looks = yield* Effect.replicateEffect(Effect.delay(Effect.sync(Memory.live), "50 millis"), 4)
    yield* load.resume
    return Math.min(...looks)
  })

const grown = (megabytes: number): Check => ({
  measured: `${megabytes.toFixed(1)} MB more memory in use`,
  met: megabytes <= memoryNoise
})

/** Looks until it is as wanted, for five seconds at most; what it is then. */
const eventually = <A, E, R>(look: Effect.Effect<A, E, R>, wanted: (value: A) => boolean) =>
  Effect.gen(function* () {
    const end = performance.now() + 5_000
    let value = yield* look
    while (!wanted(value) && performance.now() < end) value = yield* Effect.delay(look, "50 millis")
    return value
  })

/** Engines whose connections are not all free while nothing runs: what was cancelled may take a moment to end. */
const unwhole = ({ router }: Rig) =>
  Effect.map(
    eventually(
      Effect.map(router.status, (all) => all.filter(isUnwhole)),
      (bad) => bad.length === 0
    ),
    (bad) => {
      const evidence = bad.map(({ inFlight, name, pool }) => `${name}: ${inFlight} in flight, ${JSON.stringify(pool)}`)
      return none("pools not whole", bad.length, evidence)
    }
  )

const isUnwhole = ({ inFlight, pool }: DbRouter.EngineStatus) =>
  inFlight !== 0 || pool.waiting !== 0 || pool.idle !== pool.total || pool.total > pool.max

/** What the primary has, every other server has too: a former primary that has come back as a replica, say. */
const replicated = (load: Load.Load, nodes: ReadonlyArray<Server>) =>
  Effect.map(
    Effect.forEach(nodes, (node) =>
      Effect.map(
        eventually(
          Effect.map(load.ledger.audit(node), (checks) => checks.filter(({ met }) => !met)),
          (bad) => bad.length === 0
        ),
        (bad) => bad.map(({ measured }) => `${node.name}: ${measured}`)
      )
    ),
    (found) => {
      const bad = found.filter((lines) => lines.length > 0)
      return none("servers that lack some of what the primary has", bad.length, bad.flat())
    }
  )

/** A server notices some time after it that a connection was closed. */
const leaks = (nodes: ReadonlyArray<Server>, applicationName: string) =>
  Effect.map(
    Effect.forEach(nodes, (node) =>
      Effect.map(
        eventually(connections(node, applicationName), (open) => open === 0),
        (open) => [node.name, open] as const
      )
    ),
    (found) => {
      const open = found.filter(([, n]) => n > 0)
      return none(
        "connections leaked",
        open.reduce((sum, [, n]) => sum + n, 0),
        open.map(([name, n]) => `${name}: ${n}`)
      )
    }
  )

const openSockets = () => process.getActiveResourcesInfo().filter((kind) => kind === "TCPSocketWrap").length

/** Sockets of this process that would keep it from ending. */
const left = (before: number) =>
  Effect.map(
    eventually(Effect.sync(openSockets), (open) => open <= before),
    (open) => none("sockets that keep the process from ending", Math.max(0, open - before))
  )

/** How much the load has done. */
const volume = ({ tally }: Load.Load): ReadonlyArray<Check> => [
  {
    measured: `${count(tally.operations)} operations`,
    met: kinds.every((kind) => tally.done(kind) > 0)
  }
]
