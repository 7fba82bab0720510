/**
 * Validation of the options, but for the groups.
 */
import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import type * as Consistency from "../../Consistency.js"
import type * as Selector from "../../Selector.js"
import type * as Topology from "../../Topology.js"
import * as check from "../validation/check.js"
import * as tokens from "./tokens.js"

const prepareFields = {
  maxPerConnection: check.integer(1),
  planCacheMode: check.oneOf("auto", "force_custom_plan", "force_generic_plan")
}
const hedgeFields = {
  after: check.duration({ positive: true }),
  maxShare: check.share
}
const classifierFields = { cacheSize: check.integer(1), refreshInterval: check.duration({ positive: true }) }
const healthFields = {
  interval: check.duration({ positive: true }),
  timeout: check.duration({ positive: true }),
  failures: check.integer(1),
  maxLag: check.duration({ positive: true }),
  maxLagBytes: check.integer(1),
  ejectShare: check.share,
  ejectTime: check.duration({ positive: false }),
  slowStart: check.duration({ positive: false })
}

const waitForPrimaryFields = {
  atStart: check.duration({ positive: false }),
  statements: check.duration({ positive: false })
}

const prepare: check.Check<boolean | check.Struct<typeof prepareFields>> = (field, value) => {
  if (typeof value === "boolean") return Either.right(value)
  return check.isObject(value)
    ? check.struct(prepareFields)(field, value)
    : check.invalid(field, value, "It must be true, false or { maxPerConnection: 256 }")
}

const hedge: check.Check<{ readonly after: Duration.Duration; readonly maxShare: number }> = (field, value) => {
  const whole = check.isObject(value) && !Duration.isDuration(value)
  return Either.gen(function* () {
    const given = whole ? yield* check.struct(hedgeFields)(field, value) : { after: value }
    const after = yield* hedgeFields.after(whole ? `${field}.after` : field, given.after)
    return Object.freeze({ after, maxShare: ("maxShare" in given ? given.maxShare : undefined) ?? 0.1 })
  })
}

const health: check.Check<boolean | check.Struct<typeof healthFields>> = (field, value) => {
  if (typeof value === "boolean") return Either.right(value)
  return check.isObject(value)
    ? check.struct(healthFields)(field, value)
    : check.invalid(field, value, 'It must be true, false or { interval: "2 seconds" }')
}

const strategy: check.Check<Selector.Strategy> = (field, value) =>
  check.isObject(value) && "name" in value && "make" in value && typeof value.make === "function"
    ? Either.right(value as Selector.Strategy)
    : check.invalid(field, value, "It must be a strategy, such as Selector.roundRobin or what Selector.make returns")

const consistency: check.Check<Consistency.Consistency> = (field, value) =>
  check.isObject(value) && "name" in value && "readsFromPrimary" in value
    ? Either.right(value as Consistency.Consistency)
    : check.invalid(field, value, "It must be a policy, such as Consistency.sticky() or Consistency.eventual()")

const topology: check.Check<Topology.Topology> = (field, value) =>
  check.isObject(value) && "name" in value && "source" in value
    ? Either.right(value as Topology.Topology)
    : check.invalid(
        field,
        value,
        'It must be a topology, such as Topology.fixed or Topology.hosts(["pg1:5432", "pg2:5432"])'
      )

/** The check of every option. */
export const fields = {
  groups: check.object<object>("It must be an object: { default: [{ url: ... }], read: [...] }"),
  defaultGroup: check.text,
  readGroup: check.text,
  strategy,
  enabled: check.boolean,
  reads: check.oneOf("automatic", "explicit", "observe"),
  consistency,
  onNoReplica: check.oneOf("primary", "fail"),
  hedge,
  prepare,
  classifier: check.struct(classifierFields),
  health,
  topology,
  waitForPrimary: check.struct(waitForPrimaryFields),
  waitForReplica: check.duration({ positive: false }),
  maxPendingNotifications: check.integer(1),
  tokens: tokens.tokens,
  metrics: check.boolean,
  shutdownTimeout: check.duration({ positive: false })
}

const inGroups = 'Engines belong into "groups": { default: [{ url: ... }], read: [...] }'

/** What is not an option, and is taken for one. */
export const misplaced = {
  default: inGroups,
  engines: inGroups,
  primary: inGroups,
  read: inGroups,
  replica: inGroups,
  replicas: inGroups,
  url: inGroups
}

const defaultMaxPrepared = 256

type Prepare = boolean | check.Struct<typeof prepareFields> | undefined

/** How many statements a connection keeps prepared. */
export const maxPrepared = (given: Prepare): number => {
  if (given === false) return 0
  return typeof given === "object" ? (given.maxPerConnection ?? defaultMaxPrepared) : defaultMaxPrepared
}

/** How the server plans them; `undefined`: as it does by itself. */
export const planCacheMode = (given: Prepare) => (typeof given === "object" ? given.planCacheMode : undefined)

/** With its defaults; `undefined`: nothing is probed. */
export const healthOf = (given: boolean | check.Struct<typeof healthFields> | undefined) => {
  if (given === false) return undefined
  const { ejectShare, ejectTime, failures, interval, maxLag, maxLagBytes, slowStart, timeout } =
    typeof given === "object" ? given : {}
  return Object.freeze({
    interval: interval ?? Duration.seconds(2),
    timeout: timeout ?? Duration.seconds(1),
    failures: failures ?? 2,
    maxLag: maxLag ?? Duration.seconds(10),
    maxLagBytes: BigInt(maxLagBytes ?? 64 * 1024 * 1024),
    ejectShare: ejectShare ?? 0.5,
    ejectTime: ejectTime ?? Duration.seconds(10),
    slowStart: slowStart ?? Duration.seconds(10)
  })
}
