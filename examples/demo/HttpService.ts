/**
 * The shop as an HTTP service, and the status page of its router, which the root leads to.
 */
import { createServer } from "node:http"
import { HttpApiBuilder, HttpServer, HttpServerResponse } from "@effect/platform"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import type { SqlError } from "@effect/sql"
import { Effect, Layer, type ParseResult } from "effect"
import { HttpStatus } from "effect-db-router"
import { Api } from "./Api.js"
import { Controls } from "./Controls.js"
import { Shop } from "./Shop.js"

/** A database that fails is a response with status 500. */
const fatal = {
  SqlError: (error: SqlError.SqlError) => Effect.die(error),
  ParseError: (error: ParseResult.ParseError) => Effect.die(error)
}

const ShopLive = HttpApiBuilder.group(Api, "shop", (handlers) =>
  Effect.map(Shop, (shop) =>
    handlers
      .handle("searchOrders", ({ urlParams }) => shop.search(urlParams).pipe(Effect.catchTags(fatal)))
      .handle("order", ({ path }) => shop.order(path.id).pipe(Effect.catchTags(fatal)))
      .handle("topCustomers", () => shop.topCustomers().pipe(Effect.catchTags(fatal)))
      .handle("placeOrder", ({ payload }) => shop.place(payload).pipe(Effect.catchTags(fatal)))
  )
)

const StatusLive = HttpApiBuilder.Router.use((router) =>
  Effect.gen(function* () {
    const { actions } = yield* Controls
    const status = yield* HttpStatus.make({
      title: "effect-db-router demo",
      description: "A shop on real PostgreSQL servers. Break one, and see where its statements go.",
      operations: true,
      actions
    })
    yield* router.mountApp("/db", status)
    yield* router.get("/", HttpServerResponse.redirect("/db/"))
  })
)

const onPort = (port: number) => NodeHttpServer.layer(() => createServer(), { host: "127.0.0.1", port })

/** Port 3000, or any free one when that is taken. */
const ServerLive = Layer.orElse(onPort(3000), () => onPort(0))

export const HttpServiceLive = HttpApiBuilder.serve().pipe(
  Layer.provide(HttpApiBuilder.api(Api)),
  Layer.provide(ShopLive),
  Layer.provide(StatusLive),
  Layer.provide(Shop.Default),
  Layer.provideMerge(ServerLive)
)

export const url = HttpServer.addressFormattedWith(Effect.succeed)
