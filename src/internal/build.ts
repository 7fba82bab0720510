import type * as Reactivity from "@effect/experimental/Reactivity"
import { SqlError } from "@effect/sql/SqlError"
import type * as PgClient from "@effect/sql-pg/PgClient"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import * as Utils from "effect/Utils"
import * as Engine from "../Engine.js"
import * as EngineGroup from "../EngineGroup.js"
import * as RouterConfig from "../RouterConfig.js"
import { RouterConfigError } from "../RouterError.js"
import * as SqlClassifier from "../SqlClassifier.js"
import * as Client from "./client.js"
import { Monitor } from "./monitor.js"
import { Router, rowsOf } from "./router.js"

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

const resolvedOf = (entry: RouterConfig.EngineEntry) => configured(entry.config, `${entry.name} (${entry.field})`)

const admissionOf = (config: RouterConfig.RouterConfig, group: string): EngineGroup.Admission =>
  group === config.defaultGroup ? "always" : group === config.readGroup ? "healthy" : "answering"

const makeGroups = (
  config: RouterConfig.RouterConfig
): Effect.Effect<ReadonlyMap<string, EngineGroup.EngineGroup>, RouterConfigError | SqlError, Scope.Scope> =>
  Effect.gen(function* () {
    const seed = yield* Random.nextInt
    const chance = new Utils.PCGRandom(seed)
    const random = () => chance.number()
    const first = yield* resolvedOf(config.groups.get(config.defaultGroup)!.engines[0]!)
    const groups = new Map<string, EngineGroup.EngineGroup>()
    for (const group of config.groups.values()) {
      const engines: Array<Engine.Engine> = []
      for (const entry of group.engines) {
        const resolved = yield* resolvedOf(entry)
        yield* RouterConfig.checkTransforms(first, resolved, entry.field)
        engines.push(
          yield* Engine.make(resolved, {
            maxPrepared: config.maxPreparedPerConnection,
            shutdownTimeout: config.shutdownTimeout
          })
        )
      }
      const { name } = group
      const admission = admissionOf(config, name)
      groups.set(name, EngineGroup.make({ name, engines, strategy: config.strategy, random, admission }))
    }
    return groups
  })

const makeClassifier = (
  config: RouterConfig.RouterConfig,
  primary: Engine.Engine
): Effect.Effect<SqlClassifier.SqlClassifier, SqlError, Scope.Scope> =>
  Effect.flatMap(
    Effect.serviceOption(SqlClassifier.SqlClassifier),
    Option.match({
      onSome: Effect.succeed,
      onNone: () =>
        SqlClassifier.fromCatalog({
          load: SqlClassifier.readCatalog((sql) =>
            // The server may have become another one by the time it runs.
            Effect.map(
              Effect.suspend(() => primary.query({ sql, params: [], asArrays: false, prepare: false })),
              rowsOf
            )
          ),
          refreshInterval: config.classifier.refreshInterval,
          cacheSize: config.classifier.cacheSize
        })
    })
  )

/** Puts a router together: engines, groups, classifier, client. */
export const make = (
  config: RouterConfig.RouterConfig
): Effect.Effect<
  { readonly client: PgClient.PgClient; readonly monitor: Monitor; readonly runner: Client.Runner },
  RouterConfigError | SqlError,
  Scope.Scope | Reactivity.Reactivity
> =>
  Effect.gen(function* () {
    // All engines at once: none takes new work while another one waits for its own to end, and one limit holds for all.
    const groups = yield* Effect.parallelFinalizers(makeGroups(config))
    const primary = groups.get(config.defaultGroup)!.engines[0]!
    const monitor = yield* Monitor.make({ config: config.health, groups: groups.values(), writer: primary })
    const classifier = yield* makeClassifier(config, primary)
    const made = yield* Client.make(new Router(config, groups, classifier))
    return { ...made, monitor }
  })
