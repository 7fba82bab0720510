import * as Either from "effect/Either"
import * as Token from "../../Token.js"
import * as check from "../validation/check.js"

const keys: check.Check<Token.Keys> = (field, value) =>
  Array.isArray(value)
    ? Token.keys(value, field)
    : check.invalidSecret(field, "It must be a list of secrets, the current one first: [Redacted.make(...)]")

const fields = { keys, lifetime: check.duration({ positive: true }) } satisfies Record<
  keyof Token.Options,
  check.Check<unknown>
>

/** The options of tokens, with the defaults filled in. */
export const tokens: check.Check<Token.Resolved> = (field, value) =>
  Either.map(check.struct(fields)(field, value), (given) => resolved(given))

/** What is not given by default. */
export const resolved = ({ keys, lifetime }: check.Struct<typeof fields> = {}): Token.Resolved =>
  Object.freeze({ keys, lifetime: lifetime ?? Token.defaultLifetime })
