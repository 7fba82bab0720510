/**
 * Servers from DNS, asked of a real name server, of the system, and of resolvers that answer nonsense.
 */
import type { SrvRecord } from "node:dns"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Option, TestClock } from "effect"
import * as RouterError from "effect-db-router/RouterError"
import * as Topology from "effect-db-router/Topology"
import * as NameServer from "../support/nameServer.js"

type Options = Parameters<typeof Topology.dns>[0]

const members = (options: Options) => Topology.dns(options).source!.members

const failure = (options: Options) => Effect.flip(members(options))

const answering = (answers: { readonly addresses?: unknown; readonly services?: unknown }): Topology.Resolver => ({
  addresses: () => Effect.succeed(answers.addresses as ReadonlyArray<string>),
  services: () => Effect.succeed(answers.services as ReadonlyArray<SrvRecord>)
})

const failing = (error: unknown): Topology.Resolver => ({
  addresses: () => Effect.fail(error),
  services: () => Effect.fail(error)
})

const hostname = "db.example.org"

describe("the addresses of a name", () => {
  it.effect("are members of stable names and in a stable order, each once", () =>
    Effect.gen(function* () {
      const addresses = ["10.0.0.2", "fd00::1", "10.0.0.1", "10.0.0.2"]
      const found = yield* members({ hostname, port: 5433, resolver: answering({ addresses }) })
      assert.deepStrictEqual(found, [
        { host: "10.0.0.1", port: 5433, name: "db.example.org/10.0.0.1", serverName: hostname },
        { host: "10.0.0.2", port: 5433, name: "db.example.org/10.0.0.2", serverName: hostname },
        { host: "fd00::1", port: 5433, name: "db.example.org/fd00::1", serverName: hostname }
      ])
      assert.deepStrictEqual(
        found,
        yield* members({ hostname, port: 5433, resolver: answering({ addresses: addresses.reverse() }) })
      )
    })
  )

  it.effect("may be those of one family only", () =>
    Effect.gen(function* () {
      const resolver = answering({ addresses: ["10.0.0.2", "fd00::1"] })
      const hosts = (family: 4 | 6) =>
        Effect.map(members({ hostname, family, resolver }), (found) => found.map(({ host }) => host))
      assert.deepStrictEqual(yield* hosts(4), ["10.0.0.2"])
      assert.deepStrictEqual(yield* hosts(6), ["fd00::1"])
      const none = yield* failure({ hostname, family: 6, resolver: answering({ addresses: ["10.0.0.2"] }) })
      assert.include(none.message, "at least one server")
    })
  )

  it.effect("are asked for under the name without the dot at its end, which no certificate has", () =>
    Effect.gen(function* () {
      const [found] = yield* members({ hostname: `${hostname}.`, resolver: answering({ addresses: ["10.0.0.1"] }) })
      assert.strictEqual(found!.serverName, hostname)
    })
  )

  it.live("come from the system, whose hosts file counts", () =>
    Effect.gen(function* () {
      const found = yield* members({ hostname: "localhost" })
      assert.isNotEmpty(found)
      for (const { host, name, serverName } of found) {
        assert.include(["127.0.0.1", "::1"], host)
        assert.strictEqual(name, `localhost/${host}`)
        assert.strictEqual(serverName, "localhost")
      }
    })
  )

  it.effect("that are none are not believed", () =>
    Effect.gen(function* () {
      for (const addresses of [[], undefined, "10.0.0.1", [7], ["db1,db2"], ["postgresql://app:hunter2@db1"], [null]]) {
        const error = yield* failure({ hostname, resolver: answering({ addresses }) })
        assert.instanceOf(error, RouterError.TopologyError)
        assert.include(error.message, "The topology dns could not read the addresses of db.example.org")
        assert.notInclude(error.message, "hunter2")
      }
    })
  )

  it.effect("are an error when the resolver fails, and its code is explained", () =>
    Effect.gen(function* () {
      const cause = Object.assign(new Error("getaddrinfo ENOTFOUND"), { code: "ENOTFOUND" })
      const error = yield* failure({ hostname, resolver: failing(cause) })
      assert.include(error.message, "there is no such name")
      assert.strictEqual(error.cause, cause)
      assert.include((yield* failure({ hostname, resolver: failing({ code: "EAI_AGAIN" }) })).message, "no name server")
      assert.include((yield* failure({ hostname, resolver: failing(new RangeError("x")) })).message, "RangeError")
      const throwing: Topology.Resolver = {
        ...failing("x"),
        addresses: () => {
          throw new TypeError("x")
        }
      }
      assert.include((yield* failure({ hostname, resolver: throwing })).message, "TypeError")
    })
  )

  it.effect("are not waited for longer than the timeout", () =>
    Effect.gen(function* () {
      const resolver: Topology.Resolver = { addresses: () => Effect.never, services: () => Effect.never }
      const fiber = yield* Effect.fork(failure({ hostname, resolver, timeout: "2 seconds" }))
      yield* TestClock.adjust("1999 millis")
      assert.isTrue(Option.isNone(yield* Fiber.poll(fiber)))
      yield* TestClock.adjust("1 millis")
      assert.include((yield* Fiber.join(fiber)).message, "took longer than 2s")
    })
  )
})

describe("the records of a service", () => {
  const srv = "_postgresql._tcp.example.org"
  const record = (name: string, port = 5432, weight = 0) => ({ name, port, weight, priority: 1 })
  const read = (...services: ReadonlyArray<unknown>) => members({ srv, resolver: answering({ services }) })

  it.effect("are members with the record's host, port and weight, each once", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(
        yield* read(
          record("db2.example.org.", 5433, 30),
          record("db1.example.org", 5432, 10),
          record("db1.example.org", 5432, 10)
        ),
        [
          { host: "db1.example.org", port: 5432, name: "db1.example.org:5432", weight: 10 },
          { host: "db2.example.org", port: 5433, name: "db2.example.org:5433", weight: 30 }
        ]
      )
    })
  )

  it.effect("of weight 0 are equal, and next to others get little", () =>
    Effect.gen(function* () {
      const weights = (found: ReadonlyArray<Topology.Member>) => found.map(({ weight }) => weight)
      assert.deepStrictEqual(weights(yield* read(record("a"), record("b"))), [1, 1])
      assert.deepStrictEqual(weights(yield* read(record("a", 1, 5), record("b", 1, 0))), [5, 0.1])
    })
  )

  it.effect("that are none are not believed", () =>
    Effect.gen(function* () {
      for (const records of [
        [],
        [record(".", 0)],
        [record("a", 0)],
        [record("a", 70_000)],
        [null],
        [{}],
        [record("a:1")]
      ]) {
        const error = yield* Effect.flip(read(...records))
        assert.instanceOf(error, RouterError.TopologyError)
        assert.include(error.message, `could not read the SRV records of ${srv}`)
      }
    })
  )
})

describe("name servers of one's own", () => {
  const zones = (): Record<string, NameServer.Zone> => ({
    [hostname]: { a: ["10.0.0.2", "10.0.0.1"], aaaa: [[0xfd00, 0, 0, 0, 0, 0, 0, 1]] },
    "four.example.org": { a: ["10.0.0.4"] },
    "half.example.org": { a: ["10.0.0.4"], fails: { [NameServer.types.AAAA]: 2 } },
    "empty.example.org": {},
    "silent.example.org": { silent: true },
    "_postgresql._tcp.example.org": {
      srv: [
        { target: "db1.example.org", port: 5432, priority: 0, weight: 10 },
        { target: "db2.example.org", port: 5433, priority: 0, weight: 30 }
      ]
    }
  })

  const started = Effect.gen(function* () {
    const records = zones()
    return { records, resolver: Topology.resolver({ servers: [yield* NameServer.make(records)] }) }
  })

  it.scopedLive("answer for addresses of both families, and of one", () =>
    Effect.gen(function* () {
      const { records, resolver } = yield* started
      const hosts = (name: string) =>
        Effect.map(members({ hostname: name, resolver }), (found) => found.map(({ host }) => host))
      assert.deepStrictEqual(yield* hosts(hostname), ["10.0.0.1", "10.0.0.2", "fd00::1"])
      assert.deepStrictEqual(yield* hosts("four.example.org"), ["10.0.0.4"])
      records["four.example.org"] = { a: ["10.0.0.5"] }
      assert.deepStrictEqual(yield* hosts("four.example.org"), ["10.0.0.5"])
    })
  )

  it.scopedLive("answer for services", () =>
    Effect.gen(function* () {
      const { resolver } = yield* started
      assert.deepStrictEqual(yield* members({ srv: "_postgresql._tcp.example.org", resolver }), [
        { host: "db1.example.org", port: 5432, name: "db1.example.org:5432", weight: 10 },
        { host: "db2.example.org", port: 5433, name: "db2.example.org:5433", weight: 30 }
      ])
    })
  )

  it.scopedLive("that do not know, or do not answer, are an error", () =>
    Effect.gen(function* () {
      const { resolver } = yield* started
      const error = (name: string) => failure({ hostname: name, resolver, timeout: "1 second" })
      // Without a server for either question: an empty list.
      assert.include((yield* error("unserved.example.org")).message, "at least one server")
      assert.include((yield* error("empty.example.org")).message, "at least one server")
      assert.include((yield* error("silent.example.org")).message, "took longer than 1s")
      assert.include((yield* failure({ srv: "_nothing._tcp.example.org", resolver })).message, "there is no such name")
    })
  )

  it.scopedLive("that answer for one family only, and fail for the other, are not believed by half", () =>
    Effect.gen(function* () {
      const { resolver } = yield* started
      const error = yield* failure({ hostname: "half.example.org", resolver })
      assert.include(error.message, "SERVFAIL")
    })
  )
})

describe("options that cannot be used", () => {
  const resolver = answering({})
  for (const [what, options, field] of [
    ["neither a name nor a service", {}, "hostname"],
    ["both", { hostname, srv: "a" }, "hostname"],
    ["a port for a service", { srv: "a", port: 1 }, "port"],
    ["a family for a service", { srv: "a", family: 4 }, "family"],
    ["an address", { hostname: "10.0.0.1" }, "hostname"],
    ["a URL", { hostname: "postgresql://app:hunter2@db1" }, "hostname"],
    ["a name with a port", { hostname: "db1:5432" }, "hostname"],
    ["port 0", { hostname, port: 0 }, "port"],
    ["family 5", { hostname, family: 5 }, "family"],
    ["no resolver", { hostname, resolver: {} }, "resolver"],
    ["no interval", { hostname, interval: 0, resolver }, "interval"]
  ] as const) {
    it(`throw: ${what}`, () => {
      try {
        Topology.dns(options as Options)
      } catch (error) {
        assert.instanceOf(error, RouterError.RouterConfigError)
        assert.strictEqual(error.field, field)
        assert.notInclude(error.message, "hunter2")
        return
      }
      assert.fail("they were accepted")
    })
  }

  for (const servers of [[], ["ns1.example.org"], ["10.0.0.1:0"], "10.0.0.1", [7], undefined]) {
    it(`throw: name servers ${JSON.stringify(servers)}`, () => {
      assert.throws(
        () => Topology.resolver({ servers: servers as ReadonlyArray<string> }),
        RouterError.RouterConfigError
      )
    })
  }

  it("are not those of name servers with ports and in brackets", () => {
    Topology.resolver({ servers: ["10.0.0.1", "10.0.0.1:8600", "[::1]", "[::1]:53"] })
  })
})
