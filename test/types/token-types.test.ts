import type { HttpApp, KeyValueStore } from "@effect/platform"
import { describe, expectTypeOf, it } from "@effect/vitest"
import { Context, Data, type Effect, type Either, type Option, type Scope } from "effect"
import { Consistency, type DbRouter, HttpSession, type RouterError, Token } from "effect-db-router"

class Shop extends Context.Tag("test/Shop")<Shop, { readonly name: string }>() {}
class Auditor extends Context.Tag("test/Auditor")<Auditor, { readonly name: string }>() {}
class Users extends Context.Tag("test/Users")<Users, { readonly name: string }>() {}
class Closed extends Data.TaggedError("Closed") {}

declare const app: HttpApp.Default<Closed, Shop>
declare const audit: Effect.Effect<void, Closed, Auditor>
declare const subject: () => Effect.Effect<Option.Option<string>, Closed, Users>
declare const work: Effect.Effect<number, Closed, Shop>

type Router = DbRouter.DbRouter | Scope.Scope

// The functions below are only looked at, never called.
describe("tokens", () => {
  it("add nothing to what an effect needs and how it fails", () => {
    expectTypeOf(Consistency.currentToken).toEqualTypeOf<Effect.Effect<Option.Option<string>>>()
    expectTypeOf(() => Consistency.withToken(work, "")).returns.toEqualTypeOf<Effect.Effect<number, Closed, Shop>>()
    expectTypeOf(() => work.pipe(Consistency.withToken(""))).returns.toEqualTypeOf<
      Effect.Effect<number, Closed, Shop>
    >()
  })

  it("are values that fail as values", () => {
    expectTypeOf(() => Token.keys([])).returns.toEqualTypeOf<Either.Either<Token.Keys, RouterError.RouterConfigError>>()
    expectTypeOf(Token.decode).returns.toEqualTypeOf<Either.Either<Token.Token, Token.Rejection>>()
    expectTypeOf<Token.Token["position"]["lsn"]>().toEqualTypeOf<bigint>()
  })

  it("of requests need a store and a subject's services only where they are kept for a subject", () => {
    expectTypeOf(() => HttpSession.middleware({ token: HttpSession.tokenCookie() })(app)).returns.toEqualTypeOf<
      HttpApp.Default<Closed, Shop | Router>
    >()
    expectTypeOf(() =>
      HttpSession.middleware({ token: [HttpSession.tokenCookie(), HttpSession.tokenHeader()] })(app)
    ).returns.toEqualTypeOf<HttpApp.Default<Closed, Shop | Router>>()
    expectTypeOf(() =>
      HttpSession.middleware({ beforeCommit: audit, token: HttpSession.tokenStore({ subject }) })(app)
    ).returns.toEqualTypeOf<HttpApp.Default<Closed, Shop | Auditor | Users | KeyValueStore.KeyValueStore | Router>>()
    expectTypeOf(() =>
      HttpSession.middleware({ token: [HttpSession.tokenCookie(), HttpSession.tokenStore({ subject })] })(app)
    ).returns.toEqualTypeOf<HttpApp.Default<Closed, Shop | Users | KeyValueStore.KeyValueStore | Router>>()
    expectTypeOf(() => HttpSession.make({ token: HttpSession.tokenStore({ subject }) })).returns.toEqualTypeOf<
      Effect.Effect<HttpSession.Middleware, never, Users | KeyValueStore.KeyValueStore | DbRouter.DbRouter>
    >()
  })
})
