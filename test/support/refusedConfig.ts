/**
 * Options that are refused, as data: what is wrong, and what the error must say about it.
 */
import { assert, it } from "@effect/vitest"
import { Either, Redacted } from "effect"
import * as RouterConfig from "effect-db-router/RouterConfig"
import * as RouterError from "effect-db-router/RouterError"

export interface Case {
  readonly what: string
  readonly options: unknown
  readonly field: string
  /** In the printed value. */
  readonly value?: string
  /** In the remedy. */
  readonly remedy: string
}

export const url = (text: string) => Redacted.make(text)

export const primary = { url: url("postgresql://app:secret@primary:5432/shop") }
export const replica = { url: url("postgresql://app:secret@replica:5432/shop") }

export const withEngine = (fields: unknown) => ({ groups: { default: [fields] } })

/** Called as from JavaScript, without types. */
export const resolve = (options: unknown) => RouterConfig.resolve(options as RouterConfig.Options)

export const isRefused = ({ field, options, remedy, value = "", what }: Case) =>
  it(what, () => {
    const result = resolve(options)
    assert(Either.isLeft(result), "it was accepted")
    const error = result.left
    assert.instanceOf(error, RouterError.RouterConfigError)
    assert.strictEqual(error.field, field)
    assert.include(error.value, value)
    assert.include(error.remedy, remedy)
    assert.include(error.message, field)
    assert.include(error.message, error.value)
    assert.include(error.message, error.remedy)
    // What the passwords in these cases end with.
    assert.notInclude(error.message, "ter2")
  })
