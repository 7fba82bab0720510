import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { HttpSession, RouterError } from "effect-db-router"

const refusal = (make: () => unknown): RouterError.RouterConfigError => {
  try {
    make()
  } catch (error) {
    assert.instanceOf(error, RouterError.RouterConfigError)
    return error
  }
  return assert.fail("it was accepted")
}

const cookie = (options: object) => () => HttpSession.tokenCookie(options)
const header = (options: object) => () => HttpSession.tokenHeader(options)
const store = (options: object) => () => HttpSession.tokenStore({ subject: () => Effect.succeedNone, ...options })

describe("how a token is carried is refused at once, with field, value and remedy, when it cannot be:", () => {
  const cases: ReadonlyArray<readonly [() => unknown, field: string, value: string, remedy: string]> = [
    [cookie({ name: "a b" }), "token.name", '"a b"', "A cookie cannot have it"],
    [cookie({ name: "a;b" }), "token.name", '"a;b"', "A cookie cannot have it"],
    [cookie({ name: "" }), "token.name", '""', "not empty"],
    [cookie({ path: "/a;b" }), "token.path", '"/a;b"', "A cookie cannot have it"],
    [cookie({ domain: "a;b" }), "token.domain", '"a;b"', "A cookie cannot have it"],
    [cookie({ sameSite: "Lax" }), "token.sameSite", '"Lax"', '"lax", "strict", "none"'],
    [cookie({ sameSite: "none", secure: false }), "token.secure", "false", "only if it is secure"],
    [cookie({ httponly: true }), "token.httponly", "<redacted>", '"httpOnly"'],
    [cookie({ maxAge: 5 }), "token.maxAge", "<redacted>", "There is no such field"],
    [header({ request: "a b" }), "token.request", '"a b"', "the name of a header"],
    [header({ response: "" }), "token.response", '""', "the name of a header"],
    [header({ name: "x" }), "token.name", "<redacted>", '"request", "response"'],
    [store({ subject: "ada" }), "token.subject", '"ada"', "function"],
    [store({ timeout: 0 }), "token.timeout", "0", "longer than zero"]
  ]
  for (const [make, field, value, remedy] of cases) {
    it(`${field} of ${value}: ${remedy}`, () => {
      const error = refusal(make)
      assert.deepStrictEqual([error.field, error.value], [field, value])
      assert.include(error.remedy, remedy)
    })
  }
})
