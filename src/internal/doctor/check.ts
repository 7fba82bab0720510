/**
 * Puts the report together.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { printLsn } from "../../Position.js"
import { type Options, type RouterConfig, resolve } from "../../RouterConfig.js"
import type { RouterConfigError } from "../../RouterError.js"
import { Topology } from "../../Topology.js"
import * as validation from "../validation/check.js"
import * as capacity from "./capacity.js"
import * as cluster from "./cluster.js"
import { inspect } from "./inspect.js"
import type { Setting } from "./questions.js"
import { type Finding, type Level, type Report, type Server, warning } from "./report.js"
import * as server from "./server.js"
import * as targets from "./targets.js"

const examine = (target: targets.Target): Effect.Effect<cluster.Examined, never, Scope.Scope> =>
  target.engine === undefined
    ? Effect.succeed({ target, result: undefined })
    : Effect.map(Effect.either(inspect(target.engine, { needsCatalog: target.isOfSystem })), (result) => ({
        target,
        result
      }))

const valueOf = ({ unit, value }: Setting): string => (unit === undefined ? value : `${value} ${unit}`)

const described = (examined: cluster.Examined, verdict: cluster.Verdict): Server => {
  const { engine, group, name } = examined.target
  const answers = cluster.inspectedOf(examined)?.answers
  const report = cluster.probeOf(examined)
  const right = <A>(answer: Either.Either<A, unknown> | undefined): A | undefined =>
    answer !== undefined && Either.isRight(answer) ? answer.right : undefined
  return {
    name,
    group,
    host: engine?.address.host,
    port: engine?.address.port,
    database: engine?.address.database ?? answers?.identity.database,
    ...verdict,
    role: answers && (answers.identity.isStandby ? "replica" : "primary"),
    version: answers?.identity.version,
    system: report?.system,
    timeline: report?.timeline,
    position: report && printLsn(report.position),
    roundTrip: answers?.roundTrip,
    skew: answers?.skew,
    user: answers?.identity.user,
    isSuperuser: answers?.identity.isSuperuser,
    isEncrypted: answers?.identity.isEncrypted,
    isProxied: answers?.isProxied,
    isBalanced: answers && answers.servers > 1,
    pool: engine?.client.maxConnections,
    connections: answers && capacity.connectionsOf(answers),
    settings: Object.fromEntries(
      [...(right(answers?.settings) ?? [])].map(([setting, value]) => [setting, valueOf(value)])
    ),
    refusedFunctions: right(answers?.privileges)?.refused ?? []
  }
}

const severity: Readonly<Record<Level, number>> = { problem: 0, warning: 1, ok: 2 }

const tokens = (config: RouterConfig, instances: number): ReadonlyArray<Finding> =>
  instances === 1 || config.tokens.keys !== undefined
    ? []
    : [
        warning(
          "tokens",
          undefined,
          `Each of the ${instances} processes signs tokens with a random key, so none accepts another's, nor its own after a restart`,
          "Where tokens are used, give all of them the same DB_ROUTER_TOKEN_KEYS (openssl rand -base64 32)"
        )
      ]

const reportOf = (
  config: RouterConfig,
  all: ReadonlyArray<cluster.Examined>,
  together: cluster.Cluster,
  instances: number,
  at: number,
  given: ReadonlyArray<Finding>
): Report => {
  const each = all.flatMap((one): ReadonlyArray<Finding> => {
    const { result, target } = one
    if (result === undefined) return []
    return Either.isRight(result)
      ? server.examine(target, result.right, config, target === together.writer)
      : [server.unreachable(target, result.left)]
  })
  const findings = [
    ...given,
    ...together.findings,
    ...each,
    ...capacity.assess(all, config, instances),
    ...tokens(config, instances)
  ].sort((a, b) => severity[a.level] - severity[b.level])
  return {
    healthy: !findings.some(({ level }) => level === "problem"),
    at,
    instances,
    primary: together.writer?.name,
    servers: all.map((one) => described(one, together.verdicts.get(one.target)!)),
    findings
  }
}

/** Asks every server at the same time, and says what it all means. */
const examineAll = (given: RouterConfig, instances: number): Effect.Effect<Report> =>
  Effect.scoped(
    Effect.gen(function* () {
      const topology = Option.getOrElse(yield* Effect.serviceOption(Topology), () => given.topology)
      const config = { ...given, topology }
      const found = yield* targets.make(config)
      const at = yield* Clock.currentTimeMillis
      const all = yield* Effect.forEach(found.targets, examine, { concurrency: "unbounded" })
      const together = yield* cluster.assess(config, all)
      return reportOf(config, all, together, instances, at, found.findings)
    })
  )

/** Validates the options, and examines the servers with them. */
export const check = (
  options: Options,
  given: { readonly instances?: number | undefined } = {}
): Effect.Effect<Report, RouterConfigError> =>
  Effect.gen(function* () {
    const config = yield* resolve(options)
    const instances = yield* validation.integer(1)("instances", given.instances ?? 1)
    return yield* examineAll(config, instances)
  })
