/**
 * Checks of single values. Options come from TypeScript, JavaScript, files and the environment, so nothing is believed.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { RouterConfigError } from "../../RouterError.js"
import { nearest } from "./didYouMean.js"
import { hidden, list, print } from "./printValue.js"

export type Checked<A> = Either.Either<A, RouterConfigError>

/** Judges the value of the field at that path. */
export type Check<A> = (field: string, value: unknown) => Checked<A>

export const invalid = (field: string, value: unknown, remedy: string): Checked<never> =>
  Either.left(new RouterConfigError({ field, value: print(value), remedy }))

/** The same, for values that may be secrets. */
export const invalidSecret = (field: string, remedy: string): Checked<never> =>
  Either.left(new RouterConfigError({ field, value: hidden, remedy }))

const check =
  <A>(accepts: (value: unknown) => value is A, remedy: string): Check<A> =>
  (field, value) =>
    accepts(value) ? Either.right(value) : invalid(field, value, remedy)

/** An option that can only be left out or have that value. */
export const only = <const A extends string | boolean>(allowed: A): Check<A> =>
  check((value): value is A => value === allowed, `It must be ${print(allowed)}, or left out`)

export const boolean = check((value) => typeof value === "boolean", "It must be true or false")

export const text = check(
  (value): value is string => typeof value === "string" && value.trim() !== "",
  "It must be a text that is not empty"
)

export const positive = check(
  (value): value is number => typeof value === "number" && Number.isFinite(value) && value > 0,
  "It must be a positive, finite number, such as 1 or 0.5"
)

export const share = check(
  (value): value is number => typeof value === "number" && value > 0 && value <= 1,
  "It must be a number above 0 and at most 1, such as 0.1"
)

export const integer = (least: number, most: number = Number.MAX_SAFE_INTEGER): Check<number> =>
  check(
    (value): value is number => Number.isSafeInteger(value) && Number(value) >= least && Number(value) <= most,
    most === Number.MAX_SAFE_INTEGER
      ? `It must be a whole number from ${least} on`
      : `It must be a whole number from ${least} to ${most}`
  )

export const oneOf = <const A extends string>(...allowed: ReadonlyArray<A>): Check<A> =>
  check((value): value is A => allowed.some((one) => one === value), `It must be one of ${list(allowed)}`)

export const isObject = (value: unknown): value is object =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** Whether an object holds what it holds in its own fields: neither a `Map` nor a `Promise` does. */
export const hasFields = (value: object): boolean => {
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === null || Object.getPrototypeOf(prototype) === null || Object.keys(value).length > 0
}

/** Functions and foreign objects can be told apart from anything else, but not from each other. */
export const callable = <F extends (...args: never) => unknown>(): Check<F> =>
  check((value): value is F => typeof value === "function", "It must be a function")

export const object = <A extends object>(remedy = "It must be an object"): Check<A> =>
  check((value): value is A => isObject(value), remedy)

export const either =
  <A, B>(first: Check<A>, second: Check<B>, remedy: string): Check<A | B> =>
  (field, value) =>
    Either.orElse(first(field, value), () => Either.orElse(second(field, value), () => invalid(field, value, remedy)))

export const redacted: Check<Redacted.Redacted> = (field, value) => {
  if (!Redacted.isRedacted(value)) {
    return invalidSecret(
      field,
      "It must be a secret: wrap the text in Redacted.make(...), or read it with Config.redacted"
    )
  }
  const secret = Redacted.value(value)
  return typeof secret === "string"
    ? Either.right(Redacted.make(secret))
    : invalidSecret(field, "The secret in it must be a text")
}

/** A secret, or an Effect that yields one when it is needed. */
export const redactedOrEffect: Check<Redacted.Redacted | Effect.Effect<Redacted.Redacted, unknown>> = (field, value) =>
  Effect.isEffect(value) ? Either.right(value as Effect.Effect<Redacted.Redacted, unknown>) : redacted(field, value)

// Timers of JavaScript count milliseconds in 31 bits, and run at once beyond that.
const longest = 2 ** 31 - 1

const isNegative = (value: unknown): boolean => {
  if (typeof value === "string") return value.trim().startsWith("-")
  if (Array.isArray(value)) return value.some(isNegative)
  return typeof value === "number" || typeof value === "bigint" ? value < 0 : false
}

const hasNaN = (value: unknown): boolean => Number.isNaN(value) || (Array.isArray(value) && value.some(hasNaN))

/** `Duration.decode` throws for what it cannot read, and turns negative numbers and NaN into zero. */
const decodeDuration = (value: unknown): Option.Option<Duration.Duration> =>
  isNegative(value) || hasNaN(value) ? Option.none() : Duration.decodeUnknown(value)

export const duration = (options: { readonly positive: boolean }): Check<Duration.Duration> => {
  const least = options.positive ? "longer than zero" : "zero or longer"
  const remedy = `It must be a duration, ${least} and at most 24 days, such as "5 seconds" or a number of milliseconds`
  return (field, value) =>
    Option.match(decodeDuration(value), {
      onNone: () => invalid(field, value, remedy),
      onSome: (decoded) => {
        const millis = Duration.toMillis(decoded)
        return millis <= longest && (millis > 0 || !options.positive)
          ? Either.right(decoded)
          : invalid(field, value, remedy)
      }
    })
}

type Fields = Record<string, Check<unknown>>

/** What a struct of checks lets through: the fields that were given. */
export type Struct<F extends Fields> = {
  readonly [K in keyof F]?: F[K] extends Check<infer A> ? A : never
}

/** Names that people expect where they are not, and what to do instead. */
export type Aliases = Record<string, string>

/** Refuses a name that is not allowed. Its value is never shown: it may be a secret under a misspelt name. */
const unknownField = (path: string, name: string, allowed: ReadonlyArray<string>, aliases: Aliases) => {
  const meant = nearest(name, [...allowed, ...Object.keys(aliases)])
  const hint = meant === undefined ? undefined : (aliases[meant] ?? `Did you mean ${JSON.stringify(meant)}?`)
  return invalidSecret(
    path === "" ? name : `${path}.${name}`,
    `There is no such field. ${hint ?? `The fields are ${list(allowed)}`}`
  )
}

/** Checks each field of an object, and that it has no others. A field that is `undefined` counts as left out. */
export const struct =
  <F extends Fields>(fields: F, aliases: Aliases = {}): Check<Struct<F>> =>
  (path, value) => {
    if (!isObject(value)) {
      return invalid(
        path === "" ? "options" : path,
        value,
        `It must be an object with the fields ${list(Object.keys(fields))}`
      )
    }
    const checked: Record<string, unknown> = {}
    for (const [name, given] of Object.entries(value)) {
      if (!Object.hasOwn(fields, name)) return unknownField(path, name, Object.keys(fields), aliases)
      if (given === undefined) continue
      const result = fields[name]!(path === "" ? name : `${path}.${name}`, given)
      if (Either.isLeft(result)) return Either.left(result.left)
      checked[name] = result.right
    }
    return Either.right(checked as Struct<F>)
  }
