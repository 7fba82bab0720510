/**
 * Servers from a list that is given, or that an Effect yields.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as check from "../validation/check.js"
import * as address from "./address.js"
import * as members from "./members.js"
import * as source from "./source.js"

const effect: check.Check<Effect.Effect<unknown, unknown>> = (field, value) =>
  Effect.isEffect(value)
    ? Either.right(value as Effect.Effect<unknown, unknown>)
    : check.invalid(
        field,
        value,
        "It must be an Effect that yields a list of servers; for a list there is Topology.hosts"
      )

const isMake = check.struct({ ...source.fields, members: effect })

export const make = (options: unknown) =>
  Either.gen(function* () {
    const given = yield* isMake("", options)
    const read = given.members ?? (yield* effect("members", undefined))
    return source.make(source.settle(given, "custom"), {
      target: "its list of servers",
      read,
      describe: source.failedWith
    })
  })

const entry = (field: string, value: unknown): check.Checked<unknown> =>
  typeof value === "string" ? address.parse(field, value) : Either.right(value)

const isHosts = check.struct({ name: source.fields.name })

export const hosts = (list: unknown, options: unknown) =>
  Either.gen(function* () {
    const { name = "hosts" } = yield* isHosts("", options)
    const entries = Array.isArray(list)
      ? yield* Either.all(list.map((one, index) => entry(`hosts[${index}]`, one)))
      : list
    const found = yield* members.list("hosts", entries)
    return Object.freeze({
      name,
      source: Object.freeze({ members: Effect.succeed(found), interval: Duration.infinity, beforeSession: undefined })
    })
  })

const { timeout: _, ...resolvingFields } = source.fields

const isResolving = check.struct(resolvingFields)

export const resolving = (options: unknown) =>
  Either.map(isResolving("", options), (given) => {
    const { beforeSession, interval, name } = source.settle(given, "resolving")
    return Object.freeze({ name, source: undefined, resolving: Object.freeze({ interval, beforeSession }) })
  })
