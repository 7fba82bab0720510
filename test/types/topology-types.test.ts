import type { HttpClient } from "@effect/platform"
import { Effect, type Layer, type Schema } from "effect"
import { DbRouter, type RouterConfig, type RouterError, Topology } from "effect-db-router"
import { describe, expectTypeOf, it } from "vitest"

declare const registry: Effect.Effect<ReadonlyArray<Topology.Member>, Error>
declare const groups: RouterConfig.Groups

// Types only: nothing here is run.
const check = (_types: () => void) => () => {}

describe("a topology", () => {
  it(
    "is a value where it asks no server, or only what it was given",
    check(() => {
      expectTypeOf(Topology.fixed).toEqualTypeOf<Topology.Topology>()
      expectTypeOf(Topology.hosts(["a", { host: "b", zone: "eu" }])).toEqualTypeOf<Topology.Topology>()
      expectTypeOf(Topology.resolving({ interval: "1 minute" })).toEqualTypeOf<Topology.Topology>()
      expectTypeOf(Topology.make({ members: registry })).toEqualTypeOf<Topology.Topology>()
      expectTypeOf(Topology.dns({ hostname: "db" })).toEqualTypeOf<Topology.Topology>()
      expectTypeOf(Topology.dns({ srv: "db" })).toEqualTypeOf<Topology.Topology>()
    })
  )

  it(
    "needs an HttpClient where it asks by HTTP",
    check(() => {
      type Asked = Effect.Effect<Topology.Topology, RouterError.RouterConfigError, HttpClient.HttpClient>
      expectTypeOf(Topology.patroni({ urls: ["http://a"] })).toEqualTypeOf<Asked>()
      expectTypeOf(Topology.http({ url: "http://a" })).toEqualTypeOf<Asked>()
      type Layered = Layer.Layer<Topology.Topology, RouterError.RouterConfigError, HttpClient.HttpClient>
      expectTypeOf(Topology.layerPatroni({ urls: ["http://a"] })).toEqualTypeOf<Layered>()
      expectTypeOf(Topology.layerHttp({ url: "http://a" })).toEqualTypeOf<Layered>()
      expectTypeOf(Topology.layer(Topology.fixed)).toEqualTypeOf<Layer.Layer<Topology.Topology>>()
      expectTypeOf(Topology.Server).toEqualTypeOf<Schema.Schema<Topology.ServerFields, Topology.ServerEncoded>>()
    })
  )

  it(
    "in the context is no requirement of the router",
    check(() => {
      expectTypeOf(DbRouter.layer({ groups, topology: Topology.fixed })).toEqualTypeOf(DbRouter.layer({ groups }))
    })
  )

  it(
    "refuses what it cannot be made from",
    check(() => {
      // @ts-expect-error a name or a service, not nothing
      Topology.dns({ interval: "1 second" })
      // @ts-expect-error a member has a host
      Topology.hosts([{ port: 5432 }])
      // @ts-expect-error an Effect that needs a service
      Topology.make({ members: Effect.as(Effect.scope, []) })
      // @ts-expect-error no such role
      Topology.hosts([{ host: "a", role: "leader" }])
    })
  )
})
