import { type HttpApp, type HttpLayerRouter, HttpRouter, HttpServer } from "@effect/platform"
import { describe, expectTypeOf, it } from "@effect/vitest"
import { Effect, type Layer } from "effect"
import { type DbRouter, HttpStatus } from "effect-db-router"

type Router = DbRouter.DbRouter

// The functions below are only looked at, never called.
describe("the status page", () => {
  it("is an app that needs the router, and never fails", () => {
    expectTypeOf(() => HttpStatus.app({ operations: true })).returns.toEqualTypeOf<HttpApp.Default<never, Router>>()
    expectTypeOf(() => HttpServer.serve(HttpStatus.app())).returns.toEqualTypeOf<
      Layer.Layer<never, never, HttpServer.HttpServer | Router>
    >()
    expectTypeOf(() => HttpRouter.mountApp(HttpRouter.empty, "/db", HttpStatus.app())).returns.toEqualTypeOf<
      HttpRouter.HttpRouter<never, Router>
    >()
  })

  it("needs nothing more once it is made", () => {
    expectTypeOf(() => HttpStatus.make()).returns.toEqualTypeOf<Effect.Effect<HttpApp.Default, never, Router>>()
  })

  it("is a layer of routes", () => {
    expectTypeOf(() => HttpStatus.layer("/db")).returns.toEqualTypeOf<
      Layer.Layer<never, never, HttpLayerRouter.HttpRouter | Router>
    >()
  })

  it("takes actions that need nothing, whatever they fail with", () => {
    expectTypeOf(Effect.fail("no" as const)).toExtend<HttpStatus.Action["run"]>()
    expectTypeOf<Effect.Effect<void, never, Router>>().not.toExtend<HttpStatus.Action["run"]>()
  })
})
