/**
 * Lists of servers that are given, or that an Effect yields: what is believed of them, and what errors say.
 */
import { isIPv6 } from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Duration, Effect, Exit, Fiber, FastCheck as fc, Layer, Option, TestClock } from "effect"
import * as RouterError from "effect-db-router/RouterError"
import * as Topology from "effect-db-router/Topology"

const membersOf = (topology: Topology.Topology) => {
  assert.isDefined(topology.source)
  return topology.source!.members
}

/** A list as from JavaScript, without types. */
const yielding = (list: unknown) => Topology.make({ members: Effect.succeed(list as ReadonlyArray<Topology.Member>) })

const read = (list: unknown) => membersOf(yielding(list))

const refused = (make: () => unknown): RouterError.RouterConfigError => {
  try {
    make()
  } catch (error) {
    assert.instanceOf(error, RouterError.RouterConfigError)
    return error as RouterError.RouterConfigError
  }
  return assert.fail("it was accepted")
}

/** All that a reader of logs could see of an error, short of its cause. */
const seen = (error: RouterError.TopologyError) => `${error.message} ${JSON.stringify({ ...error, cause: undefined })}`

describe("a list that an Effect yields", () => {
  it.effect("is the list, without what is no field of a member", () =>
    Effect.gen(function* () {
      const members = yield* read([
        { host: "db1", port: 5433, name: "a", weight: 2, zone: "z", role: "primary", reads: false, serverName: "pg" },
        { host: "[::1]", port: null, zone: null, region: "eu", settings: { maxConnections: 3 } }
      ])
      assert.deepStrictEqual(members, [
        { host: "db1", port: 5433, name: "a", weight: 2, zone: "z", role: "primary", reads: false, serverName: "pg" },
        { host: "::1", settings: { maxConnections: 3 } }
      ])
    })
  )

  it.effect("is read anew each time", () =>
    Effect.gen(function* () {
      let host = "db1"
      const members = membersOf(Topology.make({ members: Effect.sync(() => [{ host }]) }))
      assert.deepStrictEqual(yield* members, [{ host: "db1" }])
      host = "db2"
      assert.deepStrictEqual(yield* members, [{ host: "db2" }])
    })
  )

  it("is read every 10 seconds and not before sessions, unless options say otherwise", () => {
    const { source } = yielding([])
    assert.isTrue(Duration.equals(source!.interval, "10 seconds"))
    assert.isUndefined(source!.beforeSession)
    const often = Topology.make({ members: Effect.succeed([]), name: "own", interval: 50, beforeSession: 0 })
    assert.strictEqual(often.name, "own")
    assert.isTrue(Duration.equals(often.source!.interval, "50 millis"))
    assert.isTrue(Duration.equals(often.source!.beforeSession!, Duration.zero))
  })

  const secret = "hunter2"

  for (const [what, list, says] of [
    ["no list", { host: "db1" }, "servers is an object. It must be a list"],
    ["nothing", undefined, "servers is missing. It must be a list"],
    ["no server", [], "servers is an empty list. It must list at least one server"],
    ["too many", Array.from({ length: 1001 }, (_, n) => ({ host: `db${n}` })), "at most 1000 servers"],
    ["texts", ["db1"], 'servers[0] is "db1". It must be a server'],
    ["no host", [{ port: 5432 }], "servers[0].host is missing"],
    ["an empty host", [{ host: "" }], 'servers[0].host is "". It must be a host name'],
    ["a host with a space", [{ host: "db 1" }], "servers[0].host"],
    ["a host that is a number", [{ host: 7 }], "servers[0].host is 7"],
    ["a host with a port", [{ host: "db1:5432" }], "without its port"],
    ["two hosts in one", [{ host: "db1,db2" }], "It must be one host"],
    ["a URL for a host", [{ host: `postgresql://app:${secret}@db1` }], "not a URL"],
    ["credentials in a host", [{ host: `app:${secret}@db1` }], "not a URL"],
    ["a control character", [{ host: "db1\u0000" }], "servers[0].host"],
    ["a long host", [{ host: "d".repeat(256) }], "servers[0].host"],
    ["port 0", [{ host: "db1", port: 0 }], "servers[0].port is 0. It must be a whole number from 1 to 65535"],
    ["port 65536", [{ host: "db1", port: 65_536 }], "servers[0].port is 65536"],
    ["a text for a port", [{ host: "db1", port: "5432" }], 'servers[0].port is "5432"'],
    ["half a port", [{ host: "db1", port: 1.5 }], "servers[0].port is 1.5"],
    ["weight 0", [{ host: "db1", weight: 0 }], "servers[0].weight is 0. It must be a positive, finite number"],
    ["endless weight", [{ host: "db1", weight: Number.POSITIVE_INFINITY }], "servers[0].weight is Infinity"],
    ["no number for a weight", [{ host: "db1", weight: Number.NaN }], "servers[0].weight is NaN"],
    ["another role", [{ host: "db1", role: "master" }], 'must be one of "primary", "replica"'],
    ["a text for reads", [{ host: "db1", reads: "no" }], 'servers[0].reads is "no". It must be true or false'],
    ["a URL for a name", [{ host: "db1", name: `postgresql://app:${secret}@db1` }], "servers[0].name is <redacted>"],
    ["one server twice", [{ host: "db1" }, { host: "db2" }, { host: "db1" }], "servers[0] is called the same"],
    [
      "one name twice",
      [
        { host: "db1", name: "a" },
        { host: "db2", name: "a" }
      ],
      'servers[1].name is "a"'
    ],
    [
      "a name that is another's address",
      [
        { host: "db1", port: 1 },
        { host: "db2", name: "db1:1" }
      ],
      "servers[1].name"
    ]
  ] as const) {
    it.effect(`fails for ${what}`, () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(read(list))
        assert.instanceOf(error, RouterError.TopologyError)
        assert.include(error.message, says)
        assert.include(error.message, "The topology custom could not read its list of servers")
        assert.notInclude(seen(error), secret)
      })
    )
  }

  it.effect("fails as the Effect does, without the text of its error in the message", () =>
    Effect.gen(function* () {
      class RegistryError extends Error {
        override readonly name = "RegistryError"
      }
      const cause = new RegistryError(`cannot reach https://app:${secret}@registry`)
      const error = yield* Effect.flip(membersOf(Topology.make({ members: Effect.fail(cause) })))
      assert.include(error.message, "it failed with RegistryError")
      assert.notInclude(seen(error), secret)
      assert.strictEqual(error.cause, cause)
      const tagged = yield* Effect.flip(membersOf(Topology.make({ members: Effect.fail({ _tag: "Gone" }) })))
      assert.include(tagged.message, "it failed with Gone")
    })
  )

  it.effect("turns defects, nonsense and its own interruption into errors", () =>
    Effect.gen(function* () {
      const of = (members: Effect.Effect<never, unknown>) => Effect.flip(membersOf(Topology.make({ members })))
      assert.include((yield* of(Effect.die(new TypeError(secret)))).message, "TypeError")
      assert.include((yield* of(Effect.fail(undefined))).message, "it failed with something that is not an Error")
      assert.include((yield* of(Effect.interrupt)).message, "it was interrupted")
      const joined = Effect.flatMap(Effect.fork(Effect.interrupt), Fiber.join)
      assert.include((yield* of(joined)).message, "it was interrupted")
    })
  )

  it.effect("fails after the timeout, whatever the Effect does meanwhile", () =>
    Effect.gen(function* () {
      for (const stuck of [Effect.never, Effect.uninterruptible(Effect.never)]) {
        const members = membersOf(Topology.make({ members: stuck, timeout: "3 seconds" }))
        // Also where its reader must not be interrupted.
        const fiber = yield* Effect.fork(Effect.uninterruptible(Effect.either(members)))
        yield* TestClock.adjust("2999 millis")
        assert.isTrue(Option.isNone(yield* Fiber.poll(fiber)))
        yield* TestClock.adjust("1 millis")
        const result = yield* Fiber.join(fiber)
        assert.include(String(result), "took longer than 3s")
      }
    })
  )

  it.effect("has 5 seconds by default", () =>
    Effect.gen(function* () {
      const fiber = yield* Effect.fork(Effect.flip(membersOf(Topology.make({ members: Effect.never }))))
      yield* TestClock.adjust("4999 millis")
      assert.isTrue(Option.isNone(yield* Fiber.poll(fiber)))
      yield* TestClock.adjust("1 millis")
      assert.include((yield* Fiber.join(fiber)).message, "took longer than 5s")
    })
  )

  it.effect("interrupts the Effect when it is late, or when its reader is interrupted", () =>
    Effect.gen(function* () {
      for (const late of [true, false]) {
        const started = yield* Deferred.make<void>()
        const interrupted = yield* Deferred.make<void>()
        const members = Deferred.succeed(started, undefined).pipe(
          Effect.zipRight(Effect.never),
          Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
        )
        const fiber = yield* Effect.fork(membersOf(Topology.make({ members })))
        yield* Deferred.await(started)
        if (late) yield* TestClock.adjust("5 seconds")
        else {
          const exit = yield* Fiber.interrupt(fiber)
          assert.isTrue(Exit.isFailure(exit) && Cause.isInterruptedOnly(exit.cause))
        }
        yield* Deferred.await(interrupted)
      }
    })
  )

  for (const [what, options, field] of [
    ["no members", {}, "members"],
    ["a list for members", { members: [{ host: "db1" }] }, "members"],
    ["a function for members", { members: () => Effect.succeed([]) }, "members"],
    ["no interval", { members: Effect.succeed([]), interval: 0 }, "interval"],
    ["a negative beforeSession", { members: Effect.succeed([]), beforeSession: "-1 seconds" }, "beforeSession"],
    ["no timeout", { members: Effect.succeed([]), timeout: 0 }, "timeout"],
    ["an empty name", { members: Effect.succeed([]), name: " " }, "name"],
    ["another option", { members: Effect.succeed([]), intervall: 5 }, "intervall"],
    ["no options", undefined, "options"]
  ] as const) {
    it(`refuses ${what}`, () => {
      assert.strictEqual(refused(() => Topology.make(options as Parameters<typeof Topology.make>[0])).field, field)
    })
  }
})

describe("a list of hosts", () => {
  const list = (...entries: ReadonlyArray<unknown>) =>
    Topology.hosts(entries as ReadonlyArray<string | Topology.Member>)

  it.effect("may have texts and members, and never changes", () =>
    Effect.gen(function* () {
      const topology = Topology.hosts(
        ["pg1:5432", "pg2", "[::1]:5433", "[fd00::1]", "10.0.0.1:1", "/run/postgresql", { host: "pg3", zone: "eu" }],
        { name: "three" }
      )
      assert.deepStrictEqual(yield* membersOf(topology), [
        { host: "pg1", port: 5432 },
        { host: "pg2" },
        { host: "::1", port: 5433 },
        { host: "fd00::1" },
        { host: "10.0.0.1", port: 1 },
        { host: "/run/postgresql" },
        { host: "pg3", zone: "eu" }
      ])
      assert.strictEqual(topology.name, "three")
      assert.isFalse(Duration.isFinite(topology.source!.interval))
      assert.isUndefined(topology.source!.beforeSession)
    })
  )

  for (const [what, entry, says] of [
    ["an empty text", "", "It must be a host name"],
    ["a URL", "postgresql://app:hunter2@pg1:5432/shop", "not a URL"],
    ["credentials", "app:hunter2@pg1", "not a URL"],
    ["what may be a password", "pg1:hunter2", "port from 1 to 65535"],
    ["port 0", "pg1:0", "from 1 to 65535"],
    ["port 65536", "pg1:65536", "from 1 to 65535"],
    ["an empty port", "pg1:", "port from 1 to 65535"],
    ["a port alone", ":5432", "It must be a host name"],
    ["an address of IPv6 without brackets", "::1", "brackets"],
    ["no address in brackets", "[pg1]:5432", "It must be a host name"],
    ["more after brackets", "[::1]5432", "brackets"],
    ["two hosts", "pg1,pg2", "list each server by itself"],
    ["a host with a port in a member", { host: "pg1:5432" }, "without its port"],
    ["null", null, "It must be a server"]
  ] as const) {
    it(`refuses ${what}`, () => {
      const error = refused(() => list("pg0", entry))
      assert.match(error.field, /^hosts\[1\]/)
      assert.include(error.remedy, says)
      assert.notInclude(error.message, "hunter2")
    })
  }

  it("refuses an empty list, no list, one server twice, and other options", () => {
    assert.strictEqual(refused(() => list()).field, "hosts")
    assert.strictEqual(refused(() => Topology.hosts("pg1" as unknown as ReadonlyArray<string>)).field, "hosts")
    assert.strictEqual(refused(() => list("pg1:1", { host: "pg1", port: 1 })).field, "hosts[1]")
    assert.strictEqual(refused(() => Topology.hosts(["pg1"], { interval: 1 } as { name?: string })).field, "interval")
  })

  const names = fc.oneof(
    fc.domain(),
    fc.ipV4(),
    fc.ipV6().filter(isIPv6),
    fc.stringMatching(/^[a-z_][a-z0-9_-]{0,20}$/)
  )

  it.prop("reads what it would write", [names, fc.option(fc.integer({ min: 1, max: 65_535 }))], ([host, port]) => {
    const text = `${host.includes(":") ? `[${host}]` : host}${port === null ? "" : `:${port}`}`
    const [member] = Effect.runSync(membersOf(list(text)))
    assert.deepStrictEqual(member, port === null ? { host } : { host, port })
  })

  it.prop("accepts no text from which a server could be misread", [fc.string({ unit: "binary" })], ([text]) => {
    const made = Exit.match(Effect.runSyncExit(Effect.suspend(() => membersOf(list(text)))), {
      onSuccess: ([member]) => member,
      onFailure: () => undefined
    })
    if (made === undefined) return
    assert.notMatch(made.host, /[\s@,[\]]|:\/\//)
    assert.strictEqual(made.host.includes(":"), isIPv6(made.host))
    if (made.port !== undefined) assert.isTrue(made.port >= 1 && made.port <= 65_535)
  })
})

describe("the layer", () => {
  it.effect("has the topology", () =>
    Effect.gen(function* () {
      const topology = Topology.hosts(["pg1"])
      const found = yield* Topology.Topology.pipe(Effect.provide(Layer.fresh(Topology.layer(topology))))
      assert.strictEqual(found, topology)
    })
  )
})
