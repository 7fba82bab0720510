/**
 * Options from environment variables: which variable becomes which field.
 */
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Consistency from "../../Consistency.js"
import { RouterConfigError } from "../../RouterError.js"
import * as Selector from "../../Selector.js"
import { list, print } from "../validation/printValue.js"
import * as address from "./address.js"
import { fieldOf } from "./groups.js"

const strategies = Object.fromEntries(
  [Selector.roundRobin, Selector.random, Selector.leastBusy, Selector.lowestLatency].map((one) => [one.name, one])
)

const policies = Object.fromEntries(
  [Consistency.causal(), Consistency.sticky(), Consistency.eventual()].map((one) => [one.name, one])
)

type Decode = (text: string) => Either.Either<unknown, string>

const asText: Decode = Either.right

const asNumber: Decode = (text) =>
  Number.isNaN(Number(text)) ? Either.left("It must be a number") : Either.right(Number(text))

const asBoolean: Decode = (text) => {
  if (/^(true|yes|on|1)$/i.test(text)) return Either.right(true)
  return /^(false|no|off|0)$/i.test(text) ? Either.right(false) : Either.left("It must be true or false")
}

const splitList = (text: string): ReadonlyArray<string> =>
  text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "")

const asSecrets: Decode = (text) => Either.right(splitList(text).map((secret) => Redacted.make(secret)))

const asOneOf =
  (known: Record<string, unknown>): Decode =>
  (text) =>
    Object.hasOwn(known, text)
      ? Either.right(known[text])
      : Either.left(`It must be one of ${list(Object.keys(known))}`)

/** A policy by its name; `window` with its duration behind a colon. */
const asPolicy: Decode = (text) => {
  const given = /^window:(.*)$/s.exec(text)?.[1]
  if (given === undefined) {
    return Either.mapLeft(asOneOf(policies)(text), (says) => `${says}, or window with a duration: "window:2 seconds"`)
  }
  const duration = Option.filter(
    Duration.decodeUnknown(given.trim()),
    (duration) => Duration.isFinite(duration) && Duration.greaterThan(duration, Duration.zero)
  )
  return Either.map(
    Either.fromOption(duration, () => 'It must have a duration behind the colon, such as "window:2 seconds"'),
    Consistency.window
  )
}

interface Scalar {
  readonly variable: string
  /** The path of the option; those that begin with `engine.` are for all engines. */
  readonly field: string
  readonly decode: Decode
}

const scalar = (variable: string, field: string, decode: Decode): Scalar => ({ variable, field, decode })

/** Every variable but those that list servers. */
export const scalars: ReadonlyArray<Scalar> = [
  scalar("DB_ROUTER_STRATEGY", "strategy", asOneOf(strategies)),
  scalar("DB_ROUTER_ZONE", "zone", asText),
  scalar("DB_ROUTER_ENABLED", "enabled", asBoolean),
  scalar("DB_ROUTER_READS", "reads", asText),
  scalar("DB_ROUTER_CONSISTENCY", "consistency", asPolicy),
  scalar("DB_ROUTER_ON_NO_REPLICA", "onNoReplica", asText),
  scalar("DB_ROUTER_HEDGE", "hedge.after", asText),
  scalar("DB_ROUTER_HEDGE_MAX_SHARE", "hedge.maxShare", asNumber),
  scalar("DB_ROUTER_PREPARE", "prepare", asBoolean),
  scalar("DB_ROUTER_PREPARE_MAX_PER_CONNECTION", "prepare.maxPerConnection", asNumber),
  scalar("DB_ROUTER_PREPARE_PLAN_CACHE_MODE", "prepare.planCacheMode", asText),
  scalar("DB_ROUTER_CLASSIFIER_CACHE_SIZE", "classifier.cacheSize", asNumber),
  scalar("DB_ROUTER_CLASSIFIER_REFRESH_INTERVAL", "classifier.refreshInterval", asText),
  scalar("DB_ROUTER_HEALTH", "health", asBoolean),
  scalar("DB_ROUTER_HEALTH_INTERVAL", "health.interval", asText),
  scalar("DB_ROUTER_HEALTH_TIMEOUT", "health.timeout", asText),
  scalar("DB_ROUTER_HEALTH_FAILURES", "health.failures", asNumber),
  scalar("DB_ROUTER_HEALTH_MAX_LAG", "health.maxLag", asText),
  scalar("DB_ROUTER_HEALTH_MAX_LAG_BYTES", "health.maxLagBytes", asNumber),
  scalar("DB_ROUTER_HEALTH_EJECT_SHARE", "health.ejectShare", asNumber),
  scalar("DB_ROUTER_HEALTH_EJECT_TIME", "health.ejectTime", asText),
  scalar("DB_ROUTER_HEALTH_SLOW_START", "health.slowStart", asText),
  scalar("DB_ROUTER_WAIT_FOR_PRIMARY_AT_START", "waitForPrimary.atStart", asText),
  scalar("DB_ROUTER_WAIT_FOR_PRIMARY_STATEMENTS", "waitForPrimary.statements", asText),
  scalar("DB_ROUTER_WAIT_FOR_REPLICA", "waitForReplica", asText),
  scalar("DB_ROUTER_MAX_PENDING_NOTIFICATIONS", "maxPendingNotifications", asNumber),
  scalar("DB_ROUTER_TOKEN_KEYS", "tokens.keys", asSecrets),
  scalar("DB_ROUTER_TOKEN_LIFETIME", "tokens.lifetime", asText),
  scalar("DB_ROUTER_METRICS", "metrics", asBoolean),
  scalar("DB_ROUTER_SHUTDOWN_TIMEOUT", "shutdownTimeout", asText),
  scalar("DB_ROUTER_MAX_CONNECTIONS", "engine.maxConnections", asNumber),
  scalar("DB_ROUTER_MIN_CONNECTIONS", "engine.minConnections", asNumber),
  scalar("DB_ROUTER_CONNECT_TIMEOUT", "engine.connectTimeout", asText),
  scalar("DB_ROUTER_IDLE_TIMEOUT", "engine.idleTimeout", asText),
  scalar("DB_ROUTER_CONNECTION_TTL", "engine.connectionTTL", asText),
  scalar("DB_ROUTER_APPLICATION_NAME", "engine.applicationName", asText),
  scalar("DB_ROUTER_ALLOW_CLEARTEXT_PASSWORD", "engine.allowCleartextPassword", asBoolean)
]

/**
 * The whole text of a variable. `Config.string` alone would not do: the providers that `ConfigProvider.nested`,
 * `unnested` and `orElse` make split every text at commas and keep the first part (effect 3.22: their `load` ignores
 * `split`). A list, as JSON has them, is joined.
 */
const wholeText = (variable: string) =>
  Effect.zipWith(
    Config.option(Config.string(variable)),
    Config.option(Config.array(Config.string(), variable)),
    (text, parts) => {
      const all = Option.getOrElse(parts, () => [])
      return Option.isNone(text) || (all.length > 1 && text.value === all[0]) ? all.join(",") : text.value
    }
  )

/** An empty variable counts as missing, as container tools pass on what is not set. */
const optionalText = (variable: string) =>
  Effect.map(wholeText(variable), (text) => Option.liftPredicate(text.trim(), (trimmed) => trimmed !== ""))

/** Fails as the provider does when the variable is missing or empty. */
const requiredText = (variable: string) =>
  Effect.flatMap(
    optionalText(variable),
    Option.match({ onNone: () => Config.nonEmptyString(variable), onSome: Effect.succeed })
  )

const fail = (variable: string, field: string, value: string, remedy: string) =>
  Effect.fail(new RouterConfigError({ field, value: print(value), remedy, variable }))

const loadScalars = Effect.gen(function* () {
  const found = new Map<string, unknown>()
  for (const { decode, field, variable } of scalars) {
    const text = yield* optionalText(variable)
    if (Option.isNone(text)) continue
    const decoded = decode(text.value)
    if (Either.isLeft(decoded)) return yield* fail(variable, field, text.value, decoded.left)
    found.set(field, decoded.right)
  }
  return found
})

/** The fields below `prefix`. */
const below = (found: ReadonlyMap<string, unknown>, prefix: string): Record<string, unknown> =>
  Object.fromEntries(
    Array.from(found)
      .filter(([field]) => field.startsWith(`${prefix}.`))
      .map(([field, value]) => [field.slice(prefix.length + 1), value])
  )

/** An option that is `true`, `false` or an object. */
const switchOf = (found: ReadonlyMap<string, unknown>, field: string) => {
  const fields = below(found, field)
  return found.get(field) === false || Object.keys(fields).length === 0 ? found.get(field) : fields
}

const strategyOf = (found: ReadonlyMap<string, unknown>) => {
  const strategy = found.get("strategy") as Selector.Strategy | undefined
  const zone = found.get("zone")
  return typeof zone === "string" ? Selector.preferZone(zone, strategy ?? Selector.roundRobin) : strategy
}

const given = (fields: Record<string, unknown>) =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))

const scalarOptions = (found: ReadonlyMap<string, unknown>) =>
  given({
    strategy: strategyOf(found),
    enabled: found.get("enabled"),
    reads: found.get("reads"),
    consistency: found.get("consistency"),
    onNoReplica: found.get("onNoReplica"),
    hedge: switchOf(found, "hedge"),
    prepare: switchOf(found, "prepare"),
    classifier: below(found, "classifier"),
    health: switchOf(found, "health"),
    tokens: below(found, "tokens"),
    metrics: found.get("metrics"),
    waitForReplica: found.get("waitForReplica"),
    maxPendingNotifications: found.get("maxPendingNotifications"),
    shutdownTimeout: found.get("shutdownTimeout")
  })

const primaryVariable = "DATABASE_URL"
const replicasVariable = "DATABASE_REPLICA_URLS"
const groupsVariable = "DATABASE_GROUPS"

const urlsVariable = (group: string) => `DATABASE_${group.toUpperCase().replace(/[^A-Z0-9]/g, "_")}_URLS`

/** The groups of `DATABASE_GROUPS`, each with the variable that lists its engines. */
const boundGroups = Effect.gen(function* () {
  const names = splitList(Option.getOrElse(yield* optionalText(groupsVariable), () => ""))
  const taken = new Map([[replicasVariable, "read"]])
  const groups: Array<readonly [name: string, variable: string]> = []
  for (const name of names) {
    const variable = urlsVariable(name)
    if (name === "default" || name === "read") {
      const of = name === "default" ? primaryVariable : replicasVariable
      return yield* fail(groupsVariable, "groups", name, `This group is what ${of} lists; leave it out here`)
    }
    if (!/^[\w-]+$/.test(name)) {
      return yield* fail(groupsVariable, "groups", name, "The name of a group here is made of letters, digits, - and _")
    }
    const other = taken.get(variable)
    if (other !== undefined) {
      const remedy = `The groups ${list([other, name])} would both be read from ${variable}; rename one of them`
      return yield* fail(groupsVariable, "groups", name, remedy)
    }
    taken.set(variable, name)
    groups.push([name, variable])
  }
  return groups
})

type Listed = readonly [group: string, variable: string, urls: ReadonlyArray<string>]

/** The variable that the value of a field came from: its own, the one for all engines, or the one that lists the URL. */
const variableOf = (found: ReadonlyMap<string, unknown>, lists: ReadonlyArray<Listed>) => {
  const own = new Map(scalars.filter(({ field }) => found.has(field)).map(({ field, variable }) => [field, variable]))
  const groups = new Map(lists.map(([group, variable]) => [fieldOf(group), variable]))
  const engines = lists.flatMap(([group, variable, urls]) =>
    urls.map(
      (_, i) => [`${fieldOf(group)}[${i}]`, variable === primaryVariable ? variable : `${variable}[${i}]`] as const
    )
  )
  return (field: string): string | undefined => {
    const engine = engines.find(([prefix]) => field === prefix || field.startsWith(`${prefix}.`))
    // A variable may hold the elements of a list.
    if (engine === undefined) return own.get(field) ?? groups.get(field) ?? own.get(field.replace(/\[\d+\]$/, ""))
    const [prefix, variable] = engine
    return own.get(`engine.${field.slice(prefix.length + 1)}`) ?? variable
  }
}

/** What the variables say, not yet validated, and the variable that a field came from. */
export const load = Effect.gen(function* () {
  const primary = yield* requiredText(primaryVariable)
  const found = yield* loadScalars
  const lists: Array<Listed> = [["default", primaryVariable, [primary]]]
  const replicas = yield* optionalText(replicasVariable)
  if (Option.isSome(replicas)) lists.push(["read", replicasVariable, address.splitList(replicas.value)])
  for (const [group, variable] of yield* boundGroups) {
    lists.push([group, variable, address.splitList(yield* requiredText(variable))])
  }
  const shared = below(found, "engine")
  const groups = Object.fromEntries(
    lists.map(([group, , urls]) => [group, urls.map((url) => ({ ...shared, url: Redacted.make(url) }))])
  )
  return {
    options: { ...scalarOptions(found), groups },
    variableOf: variableOf(found, lists)
  }
})
