import { inspect } from "node:util"
import { assert, describe, it } from "@effect/vitest"
import { Cause, ConfigProvider, Effect, Either, Exit, Option, Redacted, Schema } from "effect"
import * as RouterConfig from "effect-db-router/RouterConfig"
import * as RouterError from "effect-db-router/RouterError"
import * as fc from "fast-check"

const marker = "Tr0ub4dor"

/** Passwords as people and generators write them: with everything that breaks a URL, unencoded. */
const password = fc
  .tuple(
    fc.string({ unit: "grapheme-ascii", maxLength: 8 }),
    fc.constantFrom("", "/", "?", "#", "@", ":", "%", ",", "&", " ", "/12/")
  )
  .map(([noise, special]) => `${noise}${special}${marker}${special}${noise}`)

const scheme = fc.constantFrom("postgresql://", "postgres://", "mysql://", "http://", "postgresql:", "")
const host = fc.constantFrom("db", "db:5432", "db:x", "db:99999", "", "a,b", "[::1]", "d b")
const rest = fc.constantFrom(
  "/shop",
  "",
  "/shop?sslmode=require",
  "/shop?weight=x",
  "/shop?name=",
  "/shop?name=a&name=b"
)

const badUrl = fc
  .tuple(scheme, password, host, rest)
  .map(([scheme, password, host, rest]) => `${scheme}app:${password}@${host}${rest}`)

/** The same with a URL that can be read, in options that cannot be used for another reason. */
const goodUrl = fc
  .tuple(password, rest)
  .map(([password, rest]) => `postgresql://app:${encodeURIComponent(password)}@db${rest}`)

const places: ReadonlyArray<(text: string) => unknown> = [
  (text) => ({ groups: { default: [{ url: Redacted.make(text) }] } }),
  (text) => ({ groups: { default: [{ url: text }] } }),
  (text) => ({ groups: { default: [text] } }),
  (text) => ({ groups: { default: text } }),
  (text) => ({ groups: { [text]: [{}] } }),
  (text) => ({ groups: { default: [{ host: text }] } }),
  (text) => ({ groups: { default: [{ hsot: text }] } }),
  (text) => ({ groups: { default: [{ name: text }], read: [{ name: text }] } }),
  (text) => ({ groups: { default: [{ url: Redacted.make(text), password: Redacted.make(text) }] } }),
  (text) => ({ groups: { default: [{ url: Redacted.make(text), weight: -1 }] } }),
  (text) => ({ groups: { default: [{ ssl: text }] } }),
  (text) => ({ groups: { default: [{ password: text }] } }),
  (text) => ({ groups: { default: [{ passwrod: text }] } }),
  (text) => ({ groups: { default: [{ url: Redacted.make(text) }] }, url: text }),
  (text) => ({ groups: { default: [{ url: Redacted.make(text) }] }, defaultGroup: text }),
  (text) => ({ groups: { default: [{ url: Redacted.make(text) }] }, readGroup: text }),
  (text) => ({ groups: { default: [{ url: Redacted.make(text) }] }, reads: text }),
  (text) => ({ groups: { default: [{}] }, tokens: { keys: [Redacted.make(text.slice(-16)), text] } }),
  (text) => ({ groups: { default: [{}] }, tokens: { keys: text } }),
  (text) => text
]

/** Everything that may end in a log. */
const printed = (error: RouterError.RouterConfigError): string =>
  [
    error.message,
    String(error),
    error.stack,
    JSON.stringify(error),
    inspect(error, { depth: 9, showHidden: true }),
    Cause.pretty(Cause.fail(error)),
    Cause.pretty(Cause.fail(error), { renderErrorCause: true }),
    inspect(Exit.fail(error), { depth: 9 }),
    JSON.stringify(Exit.fail(error)),
    JSON.stringify(Schema.encodeSync(RouterError.RouterConfigError)(error))
  ].join("\n")

/** Pieces of the password count too: a URL that is misread falls apart inside it. */
const isSilent = (text: string) => {
  for (const piece of [marker, marker.slice(0, 5), marker.slice(-5), encodeURIComponent(marker)]) {
    assert.notInclude(text.toLowerCase(), piece.toLowerCase())
  }
}

describe("a password never appears", () => {
  for (const [i, place] of places.entries()) {
    it(`in what is printed of an error, wherever a URL is put (${i + 1})`, () => {
      let refusals = 0
      fc.assert(
        fc.property(fc.oneof(badUrl, goodUrl), (text) => {
          const result = RouterConfig.resolve(place(text) as RouterConfig.Options)
          if (Either.isLeft(result)) {
            refusals++
            isSilent(printed(result.left))
          }
        }),
        { numRuns: 300 }
      )
      assert.isAbove(refusals, 50)
    })
  }

  it("in what is printed of an error in the environment", () => {
    const variables = fc.constantFrom("DATABASE_URL", "DATABASE_REPLICA_URLS", "DATABASE_GROUPS", "DATABASE_A_URLS")
    let refusals = 0
    fc.assert(
      fc.property(variables, fc.oneof(badUrl, goodUrl), (variable, text) => {
        const environment = { DATABASE_URL: "postgresql://db/shop", DATABASE_GROUPS: "a", [variable]: text }
        const exit = Effect.runSyncExit(
          RouterConfig.fromEnv.pipe(
            Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(environment))))
          )
        )
        if (Exit.isFailure(exit)) {
          refusals++
          isSilent(Cause.pretty(exit.cause, { renderErrorCause: true }))
          isSilent(JSON.stringify(exit))
          isSilent(inspect(exit, { depth: 9, showHidden: true }))
          const error = Option.getOrThrow(Cause.failureOption(exit.cause))
          if (error._tag === "RouterConfigError") isSilent(printed(error))
        }
      }),
      { numRuns: 2_000 }
    )
    assert.isAbove(refusals, 500)
  })

  it("in what is printed of the configuration itself", () => {
    fc.assert(
      fc.property(goodUrl, (text) => {
        const result = RouterConfig.resolve({ groups: { default: [{ url: Redacted.make(text) }] } })
        if (Either.isRight(result)) {
          isSilent(inspect(result.right, { depth: 9 }))
          isSilent(JSON.stringify([...result.right.groups.values()]))
        }
      })
    )
  })
})

describe("a URL that the router accepts is what its author meant", () => {
  it("whatever is in the password, once encoded", () => {
    fc.assert(
      fc.property(password, (password) => {
        const text = `postgresql://app:${encodeURIComponent(password)}@db:5433/shop?name=a`
        const result = RouterConfig.resolve({ groups: { default: [{ url: Redacted.make(text) }] } })
        assert(Either.isRight(result))
        const engine = result.right.groups.get("default")!.engines[0]!.known!
        assert.deepStrictEqual(engine.address, { host: "db", port: 5433, database: "shop" })
        assert.strictEqual(decodeURIComponent(new URL(Redacted.value(engine.client.url!)).password), password)
      })
    )
  })
})
