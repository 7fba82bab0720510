import {
  HttpApi,
  HttpApiBuilder,
  HttpApp,
  HttpLayerRouter,
  HttpRouter,
  HttpServer,
  type HttpServerRequest,
  HttpServerResponse
} from "@effect/platform"
import { describe, expectTypeOf, it } from "@effect/vitest"
import { Context, Data, type Effect, Layer, type Runtime, type Scope } from "effect"
import { type DbRouter, HttpSession } from "effect-db-router"

class Shop extends Context.Tag("test/Shop")<Shop, { readonly name: string }>() {}
class Auditor extends Context.Tag("test/Auditor")<Auditor, { readonly name: string }>() {}
class Closed extends Data.TaggedError("Closed") {}

declare const app: HttpApp.Default<Closed, Shop>
declare const audit: Effect.Effect<void, Closed, Auditor>

class Api extends HttpApi.make("types") {}

type Router = DbRouter.DbRouter

// The functions below are only looked at, never called.
describe("the request scope", () => {
  it("adds the router, the request's scope and the services of beforeCommit to what an app needs", () => {
    expectTypeOf(() => HttpSession.middleware()(app)).returns.toEqualTypeOf<
      HttpApp.Default<Closed, Shop | Router | Scope.Scope>
    >()
    expectTypeOf(() => HttpSession.middleware({ beforeCommit: audit })(app)).returns.toEqualTypeOf<
      HttpApp.Default<Closed, Shop | Auditor | Router | Scope.Scope>
    >()
    expectTypeOf(() => app.pipe(HttpSession.middleware({ skip: ["OPTIONS"] }))).returns.toEqualTypeOf<
      HttpApp.Default<Closed, Shop | Router | Scope.Scope>
    >()
  })

  it("is an argument of HttpServer.serve", () => {
    expectTypeOf(() => HttpServer.serve(app, HttpSession.middleware())).returns.toEqualTypeOf<
      Layer.Layer<never, never, HttpServer.HttpServer | Shop | Router>
    >()
    expectTypeOf(() =>
      app.pipe(HttpServer.serve(HttpSession.middleware({ beforeCommit: audit })))
    ).returns.toEqualTypeOf<Layer.Layer<never, never, HttpServer.HttpServer | Shop | Auditor | Router>>()
    expectTypeOf(() => app.pipe(HttpSession.middleware(), HttpServer.serve())).returns.toEqualTypeOf<
      Layer.Layer<never, never, HttpServer.HttpServer | Shop | Router>
    >()
    expectTypeOf(() => HttpServer.serveEffect(app, HttpSession.middleware())).returns.toEqualTypeOf<
      Effect.Effect<void, never, HttpServer.HttpServer | Shop | Router | Scope.Scope>
    >()
  })

  it("is around the routes of an HttpRouter", () => {
    const router = () => HttpRouter.empty.pipe(HttpRouter.get("/", app))
    expectTypeOf(() => HttpRouter.use(router(), HttpSession.middleware())).returns.toEqualTypeOf<
      HttpRouter.HttpRouter<Closed, Shop | Router>
    >()
  })

  it("is a middleware of an HttpApi", () => {
    type Served = HttpServer.HttpServer | HttpRouter.HttpRouter.DefaultServices | HttpApi.Api | Router
    expectTypeOf(() => HttpApiBuilder.serve(HttpSession.middleware())).returns.toEqualTypeOf<
      Layer.Layer<never, never, Served>
    >()
    expectTypeOf(() => HttpApiBuilder.serve(HttpSession.middleware({ beforeCommit: audit }))).returns.toEqualTypeOf<
      Layer.Layer<never, never, Served | Auditor>
    >()
    expectTypeOf(() => HttpApiBuilder.middleware(HttpSession.make())).returns.toEqualTypeOf<
      Layer.Layer<never, never, Router>
    >()
    expectTypeOf(() => HttpApiBuilder.middleware(Api, HttpSession.make({ beforeCommit: audit }))).returns.toEqualTypeOf<
      Layer.Layer<never, never, Auditor | Router>
    >()
  })

  it("is a middleware of HttpLayerRouter, by route and global", () => {
    expectTypeOf(() => HttpLayerRouter.middleware(HttpSession.make()).layer).returns.toEqualTypeOf<
      Layer.Layer<never, never, Router>
    >()
    expectTypeOf(
      () => HttpLayerRouter.middleware(HttpSession.make({ beforeCommit: audit })).layer
    ).returns.toEqualTypeOf<Layer.Layer<never, never, Auditor | Router>>()
    expectTypeOf(() => HttpLayerRouter.middleware(HttpSession.make(), { global: true })).returns.toEqualTypeOf<
      Layer.Layer<never, never, HttpLayerRouter.HttpRouter | Router>
    >()
    expectTypeOf(() => HttpLayerRouter.middleware(HttpSession.middleware(), { global: true })).returns.toEqualTypeOf<
      Layer.Layer<never, never, HttpLayerRouter.HttpRouter | HttpLayerRouter.Request<"GlobalRequires", Router>>
    >()
    const route = HttpLayerRouter.add("GET", "/", HttpServerResponse.empty())
    expectTypeOf(() => HttpLayerRouter.serve(route, { middleware: HttpSession.middleware() })).returns.toEqualTypeOf<
      Layer.Layer<never, never, HttpServer.HttpServer | Router>
    >()
  })

  it("is in a web handler", () => {
    expectTypeOf((runtime: Runtime.Runtime<Shop | Router>) =>
      HttpApp.toWebHandlerRuntime(runtime)(HttpSession.middleware()(app))
    ).returns.toMatchTypeOf<(request: Request) => Promise<Response>>()
    expectTypeOf((runtime: Runtime.Runtime<Shop | Router>) =>
      HttpApp.toWebHandlerRuntime(runtime)(app, HttpSession.middleware())
    ).returns.toMatchTypeOf<(request: Request) => Promise<Response>>()
    expectTypeOf((services: Layer.Layer<Shop | Router>) =>
      HttpApp.toWebHandlerLayer(app.pipe(HttpSession.middleware()), services)
    ).returns.toMatchTypeOf<{ readonly handler: (request: Request) => Promise<Response> }>()
    expectTypeOf((services: Layer.Layer<Router | HttpApi.Api>) =>
      HttpApiBuilder.toWebHandler(
        Layer.provideMerge(HttpApiBuilder.middleware(HttpSession.make()), services).pipe(
          Layer.merge(HttpServer.layerContext)
        )
      )
    ).returns.toMatchTypeOf<{ readonly handler: (request: Request) => Promise<Response> }>()
  })

  it("has options that are checked", () => {
    const refused = () => [
      // @ts-expect-error no such method
      HttpSession.middleware({ skip: ["FETCH"] }),
      // @ts-expect-error not a yes or no
      HttpSession.middleware({ commits: (status) => status }),
      // @ts-expect-error no effect
      HttpSession.middleware({ beforeCommit: () => "done" }),
      // @ts-expect-error no such isolation level
      HttpSession.make({ session: { isolation: "chaos" } }),
      // @ts-expect-error misspelt
      HttpSession.make({ readonlyGet: true }),
      // @ts-expect-error one that lacks a service is none for a layer
      HttpApiBuilder.middleware(HttpSession.middleware())
    ]
    expectTypeOf(refused).not.toBeAny()
    expectTypeOf<HttpSession.Options["skip"]>().toEqualTypeOf<
      | ReadonlyArray<"GET" | "POST" | "PUT" | "DELETE" | "PATCH" | "HEAD" | "OPTIONS">
      | ((request: HttpServerRequest.HttpServerRequest) => boolean)
      | undefined
    >()
    expectTypeOf(HttpSession.commitByStatus).toEqualTypeOf<(status: number) => boolean>()
  })
})
