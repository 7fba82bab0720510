import type * as Reactivity from "@effect/experimental/Reactivity"
import { SqlError } from "@effect/sql/SqlError"
import type * as PgClient from "@effect/sql-pg/PgClient"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Scope from "effect/Scope"
import * as Utils from "effect/Utils"
import * as Engine from "../../Engine.js"
import * as EngineGroup from "../../EngineGroup.js"
import * as RouterConfig from "../../RouterConfig.js"
import { RouterConfigError } from "../../RouterError.js"
import * as SqlClassifier from "../../SqlClassifier.js"
import { Topology } from "../../Topology.js"
import * as tokenSource from "../consistency/tokenSource.js"
import { isSameClient } from "../discovery/memberConfig.js"
import { Discovery, type Owned } from "../discovery/reconcile.js"
import { Refresh } from "../discovery/refresher.js"
import { ServerLost } from "../driver/failure.js"
import { command } from "../driver/run.js"
import { Pace } from "../engine/pace.js"
import { Monitor } from "../health/monitor.js"
import { Servers } from "../health/serverSet.js"
import { Router, rowsOf } from "../routing/router.js"
import { Complaints } from "../telemetry/logOnce.js"
import { Telemetry } from "../telemetry/metrics.js"
import type { Tokens } from "../tokens/tokens.js"
import * as bounded from "../util/bounded.js"
import { elapsedOf } from "../util/clock.js"
import * as limits from "../util/limits.js"
import * as Client from "./client.js"
import type { Runner } from "./transactionRunner.js"

/** The configuration of an engine that is given as an Effect. */
export const configured = <A>(
  config: Effect.Effect<A, unknown>,
  name: string
): Effect.Effect<A, RouterConfigError | SqlError> =>
  Effect.mapError(config, (cause) =>
    cause instanceof RouterConfigError
      ? cause
      : new SqlError({ cause, message: `The configuration of the engine ${name} could not be obtained` })
  )

const slotOf = ({ field, name }: RouterConfig.EngineEntry) => `${name} (${field})`

const resolvedOf = (entry: RouterConfig.EngineEntry) => configured(entry.config, slotOf(entry))

/** The same, within its limit. It is not ours: it may take its time, and ignore its interruption. */
export const configuredSoon = <A>(
  config: Effect.Effect<A, unknown>,
  name: string
): Effect.Effect<A, RouterConfigError | SqlError> =>
  Effect.flatMap(bounded.within(configured(config, name), limits.configuration), (answer) => {
    if (answer.state !== "late") return answer.exit
    const limit = Duration.format(limits.configuration)
    return Effect.fail(
      new SqlError({
        cause: new Error(`no answer within ${limit}`),
        message: `The Effect that yields the configuration of the engine ${name} took longer than ${limit}`
      })
    )
  })

/** An engine of the options, and where it stands there. */
interface Placed extends Owned {
  readonly entry: RouterConfig.EngineEntry
  readonly resolved: RouterConfig.ResolvedEngine
}

type Make = (config: RouterConfig.ResolvedEngine) => Effect.Effect<Owned>

const makeWith = (config: RouterConfig.RouterConfig, scope: Scope.Scope, pace: Pace): Make => {
  const { maxPreparedPerConnection: maxPrepared, planCacheMode, shutdownTimeout, waitForReplica } = config
  const options = { maxPrepared, planCacheMode, shutdownTimeout, waitForReplica, pace }
  return (resolved) =>
    Effect.gen(function* () {
      const own = yield* Scope.fork(scope, ExecutionStrategy.sequential)
      return { engine: yield* Scope.extend(Engine.make(resolved, options), own), scope: own }
    })
}

const makeEngines = (
  config: RouterConfig.RouterConfig,
  make: Make
): Effect.Effect<ReadonlyMap<string, ReadonlyArray<Placed>>, RouterConfigError | SqlError> =>
  Effect.gen(function* () {
    const first = yield* resolvedOf(config.groups.get(config.defaultGroup)!.engines[0]!)
    const groups = new Map<string, ReadonlyArray<Placed>>()
    for (const group of config.groups.values()) {
      const placed: Array<Placed> = []
      for (const entry of group.engines) {
        const resolved = yield* resolvedOf(entry)
        yield* RouterConfig.checkTransforms(first, resolved, entry.field)
        placed.push({ ...(yield* make(resolved)), entry, resolved })
      }
      groups.set(group.name, placed)
    }
    return groups
  })

const unreadable = (cause: unknown): Effect.Effect<never, SqlError> =>
  Effect.fail(new SqlError({ cause, message: "The catalog cannot be read" }))

const makeClassifier = (
  config: RouterConfig.RouterConfig,
  servers: Servers
): Effect.Effect<SqlClassifier.SqlClassifier, SqlError, Scope.Scope> =>
  Effect.flatMap(
    Effect.serviceOption(SqlClassifier.SqlClassifier),
    Option.match({
      onSome: Effect.succeed,
      onNone: () => {
        // Another server may have become the primary by the time it runs.
        const ask = (sql: string) =>
          Effect.map(
            Effect.suspend(() => servers.lastWriter.query(command(sql))),
            rowsOf
          )
        return SqlClassifier.fromCatalog({
          load: Effect.flatMap(bounded.within(SqlClassifier.readCatalog(ask), limits.firstCatalog), (answer) =>
            answer.state === "late"
              ? unreadable(new ServerLost(`no answer within ${Duration.format(limits.firstCatalog)}`))
              : answer.exit
          ).pipe(
            // What is no catalog throws while it is read.
            Effect.catchAllDefect(unreadable)
          ),
          stamp: SqlClassifier.readStamp(ask),
          refreshInterval: config.classifier.refreshInterval,
          cacheSize: config.classifier.cacheSize,
          metrics: config.metrics
        })
      }
    })
  )

/** The engines of the options that were given as Effects: what those yield now is followed. */
const resolveAgain = (engines: ReadonlyArray<Placed>, monitor: Monitor): Effect.Effect<void> => {
  const complaints = new Complaints()
  return Effect.forEach(
    engines.filter(({ entry }) => entry.known === undefined),
    ({ engine, entry }) => {
      const { name } = engine
      return Effect.flatMap(configuredSoon(entry.config, slotOf(entry)), (resolved) =>
        isSameClient(engine.client, resolved.client) ? Effect.void : monitor.rebind(engine, resolved)
      ).pipe(
        Effect.zipRight(complaints.over(name, `${name} is where its configuration has it`)),
        Effect.catchAll((error) => complaints.of(name, `${name} stays where it is: ${error.message}`, error.cause))
      )
    },
    { discard: true }
  )
}

interface Parts {
  readonly servers: Servers
  readonly others: ReadonlyArray<EngineGroup.EngineGroup>
  readonly named: ReadonlySet<Engine.Engine>
  /** What keeps the engines as the topology has them, once they are watched. */
  readonly refreshing: (monitor: Monitor) => Refresh | undefined
}

/** The engines in their groups, where the topology has them. */
const makeParts = (
  config: RouterConfig.RouterConfig
): Effect.Effect<Parts, RouterConfigError | SqlError, Scope.Scope> =>
  Effect.gen(function* () {
    const scope = yield* Effect.scope
    const chance = new Utils.PCGRandom(yield* Random.nextInt)
    const random = () => chance.number()
    const clock = yield* Effect.clock
    const make = makeWith(config, scope, new Pace(() => elapsedOf(clock), random))
    const placed = yield* makeEngines(config, make)
    const { defaultGroup, readGroup, strategy, topology } = config
    const writers = placed.get(defaultGroup)!
    const owned = [...writers, ...((readGroup !== undefined && placed.get(readGroup)) || [])]
    const enginesOf = (owned: ReadonlyArray<Owned>) => owned.map(({ engine }) => engine)
    const servers = new Servers({ engines: enginesOf(owned), defaultGroup, readGroup, strategy, random })
    const rest = [...placed].filter(([name]) => name !== defaultGroup && name !== readGroup)
    const others = rest.map(([name, members]) =>
      EngineGroup.make({ name, engines: enginesOf(members), strategy, random, admission: "answering" })
    )
    const named = new Set(enginesOf(writers))
    const { resolving, source } = topology
    if (source === undefined) {
      const all = [...placed.values()].flat()
      const refreshing = (monitor: Monitor) => resolving && new Refresh(resolveAgain(all, monitor), resolving)
      return { servers, others, named, refreshing }
    }
    const taken = new Set(others.flatMap((group) => group.engines.map(({ name }) => name)))
    const template = writers[0]!.resolved
    const discovery = new Discovery({ members: source.members, servers, template, make, owned, named, taken, scope })
    const refresh = new Refresh(discovery.read, source)
    yield* refresh.now
    const refreshing = (monitor: Monitor) => {
      discovery.start(monitor)
      return refresh
    }
    return { servers, others, named, refreshing }
  })

/** A `Topology` in the context takes the place of the option. */
const withTopology = (config: RouterConfig.RouterConfig): Effect.Effect<RouterConfig.RouterConfig> =>
  Effect.map(
    Effect.serviceOption(Topology),
    Option.match({
      onNone: () => config,
      onSome: (topology) => ({
        ...config,
        topology,
        // With a list that may grow there can be replicas, wherever they are not yet.
        readGroup: topology.source === undefined ? config.readGroup : (config.readGroup ?? "read")
      })
    })
  )

/** Puts a router together: engines, groups, classifier, client. */
export const make = (
  options: RouterConfig.RouterConfig
): Effect.Effect<
  {
    readonly client: PgClient.PgClient
    readonly primaryClient: PgClient.PgClient
    readonly monitor: Monitor
    readonly runner: Runner
    readonly tokens: Tokens
  },
  RouterConfigError | SqlError,
  Scope.Scope | Reactivity.Reactivity
> =>
  Effect.gen(function* () {
    const config = yield* withTopology(options)
    // All engines at once: none takes new work while another one waits for its own to end, and one limit holds for all.
    const { named, others, refreshing, servers } = yield* Effect.parallelFinalizers(makeParts(config))
    const { health, metrics, waitForPrimary } = config
    const telemetry = metrics ? yield* Telemetry.make : undefined
    const startTimeout = waitForPrimary.atStart
    const needsReplica = config.onNoReplica === "fail"
    const monitor = yield* Monitor.make({
      config: health,
      servers,
      others,
      named,
      needsReplica,
      startTimeout,
      telemetry
    })
    const refresh = refreshing(monitor)
    if (refresh !== undefined) yield* refresh.start
    const classifier = yield* makeClassifier(config, servers)
    const beforeSession = refresh?.beforeSession ?? Effect.void
    const router = new Router({ config, servers, others, classifier, monitor, beforeSession, telemetry })
    const made = yield* Client.make(router, monitor.events)
    return { ...made, monitor, tokens: tokenSource.make(router) }
  })
