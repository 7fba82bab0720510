import { assert, describe, it } from "@effect/vitest"
import { Either, Redacted } from "effect"
import type { RouterConfig, Topology } from "effect-db-router"
import { resolveEngine } from "effect-db-router/RouterConfig"
import * as member from "../../src/internal/discovery/memberConfig.js"

const template = (config: RouterConfig.EngineConfig) =>
  Either.getOrThrow(resolveEngine({ field: "groups.default[0]", name: "default-1" }, config))

const url = (text: string) => template({ url: Redacted.make(text), maxConnections: 7 })

const resolved = (one: Topology.Member, of: RouterConfig.ResolvedEngine) => Either.getOrThrow(member.resolve(one, of))

const textOf = (engine: RouterConfig.ResolvedEngine) => engine.client.url && Redacted.value(engine.client.url)

describe("how to connect to a member", () => {
  it("is as for the first engine, on another server", () => {
    const engine = resolved({ host: "db2", port: 5433 }, url("postgres://app:s%40crt@db1:5432/shop?sslmode=require"))
    assert.strictEqual(textOf(engine), "postgres://app:s%40crt@db2:5433/shop?sslmode=require")
    assert.deepStrictEqual(engine.address, { host: "db2", port: 5433, database: "shop" })
    assert.deepStrictEqual([engine.name, engine.weight, engine.client.maxConnections], ["db2:5433", 1, 7])
  })

  it("without a URL: the parts", () => {
    const of = template({ host: "db1", port: 6000, username: "app", password: Redacted.make("x"), database: "shop" })
    const { address, client, name } = resolved({ host: "db2", weight: 3, zone: "here" }, of)
    assert.deepStrictEqual([address, name], [{ host: "db2", port: 6000, database: "shop" }, "db2:6000"])
    assert.deepStrictEqual([client.username, Redacted.value(client.password!)], ["app", "x"])
  })

  it("addresses, sockets and zones arrive; a host that the URL has as a parameter does not stay", () => {
    const of = url("postgres://app@db1:5432/shop?host=elsewhere&port=1&sslmode=disable")
    for (const host of ["10.0.0.7", "fd00::3", "fe80::1%eth0", "/run/postgresql"]) {
      const { address } = resolved({ host, port: 5433 }, of)
      assert.deepStrictEqual([address.host, address.port], [host, 5433])
    }
  })

  it("what a member has of its own counts more, and keeps the rest", () => {
    const settings = { username: "re ader", password: Redacted.make("p@ss"), database: "copy", maxConnections: 2 }
    const engine = resolved({ host: "db2", settings }, url("postgres://app:secret@db1/shop?sslmode=require"))
    assert.strictEqual(textOf(engine), "postgres://re%20ader:p%40ss@db2/copy?sslmode=require")
    assert.strictEqual(engine.client.maxConnections, 2)
  })

  it("the name in the certificate is for those that use TLS", () => {
    const secure = template({ host: "db1", ssl: true })
    assert.deepStrictEqual(resolved({ host: "10.0.0.7", serverName: "db.example" }, secure).client.ssl, {
      servername: "db.example"
    })
    const plain = template({ host: "db1" })
    assert.isUndefined(resolved({ host: "10.0.0.7", serverName: "db.example" }, plain).client.ssl)
  })

  it("is compared by what it says, secrets too", () => {
    const one = url("postgres://app:one@db1/shop")
    assert.isTrue(member.isSameClient(one.client, url("postgres://app:one@db1/shop").client))
    assert.isFalse(member.isSameClient(one.client, url("postgres://app:two@db1/shop").client))
    assert.isFalse(member.isSameClient(one.client, { ...one.client, ssl: { servername: "a" } }))
    assert.isTrue(
      member.isSameClient({ ...one.client, ssl: { servername: "a" } }, { ...one.client, ssl: { servername: "a" } })
    )
  })
})
