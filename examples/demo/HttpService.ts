/**
 * The shop as an HTTP service.
 */
import { createServer } from "node:http"
import { HttpApiBuilder, HttpServer } from "@effect/platform"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import type { SqlError } from "@effect/sql"
import { Effect, Layer, type ParseResult } from "effect"
import { Api } from "./Api.js"
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

const onPort = (port: number) => NodeHttpServer.layer(() => createServer(), { host: "127.0.0.1", port })

/** Port 3000, or any free one when that is taken. */
const ServerLive = Layer.orElse(onPort(3000), () => onPort(0))

export const HttpServiceLive = HttpApiBuilder.serve().pipe(
  Layer.provide(HttpApiBuilder.api(Api)),
  Layer.provide(ShopLive),
  Layer.provide(Shop.Default),
  Layer.provideMerge(ServerLive)
)

export const url = HttpServer.addressFormattedWith(Effect.succeed)
