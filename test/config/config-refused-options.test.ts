import { describe } from "@effect/vitest"
import { Duration } from "effect"
import * as Selector from "effect-db-router/Selector"
import { type Case, isRefused, primary, replica, withEngine } from "../support/refusedConfig.js"

const identity = (name: string) => name

const optionCases: ReadonlyArray<Case> = [
  { what: "no options", options: undefined, field: "options", value: "undefined", remedy: "groups" },
  { what: "a list for options", options: [], field: "options", value: "an empty list", remedy: "groups" },
  { what: "no groups", options: {}, field: "groups", value: "undefined", remedy: "default:" },
  {
    what: "no group in groups",
    options: { groups: {} },
    field: "groups",
    value: "an empty object",
    remedy: "default:"
  },
  {
    what: "a list for groups",
    options: { groups: [primary] },
    field: "groups",
    value: "a list of 1",
    remedy: "default:"
  },
  {
    what: "one engine for a group",
    options: { groups: { default: primary } },
    field: "groups.default",
    value: "an object",
    remedy: "list of engines"
  },
  {
    what: "an empty default group",
    options: { groups: { default: [] } },
    field: "groups.default",
    value: "an empty list",
    remedy: "the server that takes the writes"
  },
  {
    what: "an empty bind group",
    options: { groups: { default: [primary], analytics: [] } },
    field: "groups.analytics",
    value: "an empty list",
    remedy: "at least one engine"
  },
  {
    what: "a group without a name",
    options: { groups: { default: [primary], " ": [replica] } },
    field: "groups",
    value: '" "',
    remedy: "must not be empty"
  },
  {
    what: "a hole in a group",
    options: { groups: { default: [primary], read: [undefined] } },
    field: "groups.read[0]",
    value: "undefined",
    remedy: "must be an object"
  },
  {
    what: "no default group",
    options: { groups: { read: [replica] } },
    field: "defaultGroup",
    value: '"default"',
    remedy: '"read"'
  },
  {
    what: "an unknown default group",
    options: { groups: { primary: [primary], analytics: [replica] }, defaultGroup: "primry" },
    field: "defaultGroup",
    value: '"primry"',
    remedy: '"primary", "analytics"; did you mean "primary"?'
  },
  {
    what: "an unknown read group",
    options: { groups: { default: [primary], read: [replica] }, readGroup: "replicas" },
    field: "readGroup",
    value: '"replicas"',
    remedy: '"default", "read"'
  },
  {
    what: "an inherited name for a group",
    options: { groups: { default: [primary] }, readGroup: "toString" },
    field: "readGroup",
    value: '"toString"',
    remedy: '"default"'
  },
  {
    what: "a number for the name of a group",
    options: { groups: { default: [primary] }, defaultGroup: 1 },
    field: "defaultGroup",
    value: "1",
    remedy: "text"
  },
  {
    what: "the same engine name twice in a group",
    options: { groups: { default: [primary], read: [{ name: "a" }, { name: "a" }] } },
    field: "groups.read[1].name",
    value: '"a"',
    remedy: "groups.read[0]"
  },
  {
    what: "the same engine name in two groups",
    options: { groups: { default: [{ ...primary, name: "a" }], analytics: [{ ...primary, name: "a" }] } },
    field: "groups.analytics[0].name",
    value: '"a"',
    remedy: "groups.default[0]"
  },
  {
    what: "the default name of another engine",
    options: { groups: { default: [primary], read: [{ name: "read-2" }, {}] } },
    field: "groups.read[1].name",
    value: '"read-2"',
    remedy: "groups.read[0]"
  },
  {
    what: "the name of a strategy",
    options: { groups: { default: [primary] }, strategy: "round-robin" },
    field: "strategy",
    value: '"round-robin"',
    remedy: "Selector.roundRobin"
  },
  {
    what: "the name of a policy",
    options: { groups: { default: [primary] }, consistency: "sticky" },
    field: "consistency",
    value: '"sticky"',
    remedy: "Consistency.sticky()"
  },
  {
    what: "a text for a switch",
    options: { groups: { default: [primary] }, enabled: "false" },
    field: "enabled",
    value: '"false"',
    remedy: "true or false"
  },
  {
    what: "unknown reads",
    options: { groups: { default: [primary] }, reads: "auto" },
    field: "reads",
    value: '"auto"',
    remedy: '"automatic", "explicit", "observe"'
  },
  {
    what: "unknown onNoReplica",
    options: { groups: { default: [primary] }, onNoReplica: "wait" },
    field: "onNoReplica",
    value: '"wait"',
    remedy: '"primary", "fail"'
  },
  {
    what: "true for hedge, which needs a time",
    options: { groups: { default: [primary] }, hedge: true },
    field: "hedge",
    value: "true",
    remedy: "must be a duration"
  },
  {
    what: "a hedge at once",
    options: { groups: { default: [primary] }, hedge: 0 },
    field: "hedge",
    value: "0",
    remedy: "longer than zero"
  },
  {
    what: "a hedge without its time",
    options: { groups: { default: [primary] }, hedge: { maxShare: 0.5 } },
    field: "hedge.after",
    value: "undefined",
    remedy: "must be a duration"
  },
  {
    what: "more than every read sent twice",
    options: { groups: { default: [primary] }, hedge: { after: 10, maxShare: 1.5 } },
    field: "hedge.maxShare",
    value: "1.5",
    remedy: "at most 1"
  },
  {
    what: "no read sent twice",
    options: { groups: { default: [primary] }, hedge: { after: 10, maxShare: 0 } },
    field: "hedge.maxShare",
    value: "0",
    remedy: "above 0"
  },
  {
    what: "a misspelt field of hedge",
    options: { groups: { default: [primary] }, hedge: { after: 10, maxshare: 0.1 } },
    field: "hedge.maxshare",
    value: "<redacted>",
    remedy: '"maxShare"'
  },
  {
    what: "a text for prepare",
    options: { groups: { default: [primary] }, prepare: "off" },
    field: "prepare",
    value: '"off"',
    remedy: "maxPerConnection"
  },
  {
    what: "no prepared statement at all",
    options: { groups: { default: [primary] }, prepare: { maxPerConnection: 0 } },
    field: "prepare.maxPerConnection",
    value: "0",
    remedy: "from 1"
  },
  {
    what: "a mode of the plan cache that PostgreSQL has not",
    options: { groups: { default: [primary] }, prepare: { planCacheMode: "force_custom" } },
    field: "prepare.planCacheMode",
    value: '"force_custom"',
    remedy: '"force_custom_plan"'
  },
  {
    what: "half a cache",
    options: { groups: { default: [primary] }, classifier: { cacheSize: 0.5 } },
    field: "classifier.cacheSize",
    value: "0.5",
    remedy: "whole number"
  },
  {
    what: "a classifier service as an option",
    options: { groups: { default: [primary] }, classifier: { classify: identity } },
    field: "classifier.classify",
    remedy: '"cacheSize", "refreshInterval"'
  },
  {
    what: "no key for tokens",
    options: { groups: { default: [primary] }, tokens: { keys: [] } },
    field: "tokens.keys",
    remedy: "at least one key"
  },
  {
    what: "a misspelt option of tokens",
    options: { groups: { default: [primary] }, tokens: { key: [] } },
    field: "tokens.key",
    remedy: '"keys"'
  },
  {
    what: "a misspelt option",
    options: { groups: { default: [primary] }, stratgey: Selector.random },
    field: "stratgey",
    remedy: '"strategy"'
  },
  {
    what: "replicas beside the groups",
    options: { groups: { default: [primary] }, replcias: [replica] },
    field: "replcias",
    remedy: '"groups"'
  },
  {
    what: "an unknown option",
    options: { groups: { default: [primary] }, theme: "dark" },
    field: "theme",
    remedy: '"shutdownTimeout"'
  }
]

const badDurations = [
  -1,
  -1n,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  2 ** 31,
  "5 secs",
  "-5 seconds",
  "soon",
  "",
  "25 days",
  [-1, 0],
  [0, Number.NaN],
  {},
  null,
  Duration.infinity
]

const durationCases: ReadonlyArray<Case> = [
  ...["connectTimeout", "idleTimeout", "connectionTTL"].map(
    (name) => [`groups.default[0].${name}`, (value: unknown) => withEngine({ [name]: value })] as const
  ),
  ["shutdownTimeout", (value: unknown) => ({ groups: { default: [primary] }, shutdownTimeout: value })] as const,
  ["tokens.lifetime", (value: unknown) => ({ groups: { default: [primary] }, tokens: { lifetime: value } })] as const,
  ["health.interval", (value: unknown) => ({ groups: { default: [primary] }, health: { interval: value } })] as const,
  [
    "classifier.refreshInterval",
    (value: unknown) => ({ groups: { default: [primary] }, classifier: { refreshInterval: value } })
  ] as const
].flatMap(([field, options]) =>
  [
    ...badDurations,
    ...(field === "classifier.refreshInterval" || field === "health.interval" || field === "tokens.lifetime"
      ? [0, "0 seconds"]
      : [])
  ].map((value) => ({
    what: `${field} of ${typeof value} ${String(value)}`,
    options: options(value),
    field,
    remedy: '"5 seconds"'
  }))
)

describe("options that cannot be used are refused with field, value and remedy:", () => {
  optionCases.forEach(isRefused)
})

describe("durations that cannot be used are refused with field, value and remedy:", () => {
  durationCases.forEach(isRefused)
})
