/** Nothing waits without a limit, and the limits are those that the documentation has. */
import { readFileSync } from "node:fs"
import { HttpServerRequest, KeyValueStore } from "@effect/platform"
import { SqlClient } from "@effect/sql"
import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Context,
  Deferred,
  Duration,
  Effect,
  Either,
  Exit,
  Fiber,
  Layer,
  Option,
  Scope,
  TestClock,
  TestServices
} from "effect"
import { Consistency, DbRouter, HttpSession, RouterConfig, RouterError } from "effect-db-router"
import * as tokenSource from "../../src/internal/consistency/tokenSource.js"
import { Refresh } from "../../src/internal/discovery/refresher.js"
import type { Router } from "../../src/internal/routing/router.js"
import type { Tokens } from "../../src/internal/tokens/tokens.js"
import * as limits from "../../src/internal/util/limits.js"
import * as engines from "../support/engine.js"
import * as fakeServer from "../support/fakeServer.js"

engines.refuseWarnings()

describe("the table of limits in docs/configuration.md", () => {
  const page = readFileSync(new URL("../../docs/configuration.md", import.meta.url), "utf8")
  const section = page.split("## How long things wait\n")[1]!.split("\n## ")[0]!
  const rows = Array.from(section.matchAll(/^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$/gm), (cells) =>
    cells.slice(1).map((cell) => cell.trim())
  ).slice(2)

  it("has the figures of the code", () => {
    const config = Either.getOrThrow(RouterConfig.resolve({ groups: { default: [{}] } }))
    const { timeout } = config.health!
    const causal = Consistency.causal().positions!
    const code: Readonly<Record<string, Duration.Duration>> = {
      "a read, for a connection of a replica": config.waitForReplica,
      "anything else, for a connection": limits.connect,
      "what needs a primary, while there is none": config.waitForPrimary.statements,
      "the start of the layer, for a primary": config.waitForPrimary.atStart,
      "the start of the layer, for the catalog": limits.firstCatalog,
      "a read, for a replica that has its flow's writes": causal.wait,
      "a probe; a trial statement": timeout,
      "an interruption, for the cancel of its statement": limits.cancel,
      "an interruption, for a COMMIT; anything, for a ROLLBACK": limits.end,
      "a token, for the position of the primary": limits.position,
      "a request, for `tokenStore`": Duration.seconds(1),
      "a request whose session holds a connection, for the next byte of its body": limits.body,
      "a session, for a topology with `beforeSession`": limits.beforeSession,
      "the reading of a topology": limits.beforeSession,
      "an engine's configuration, when its Effect runs again": limits.configuration,
      "a `rebind`, for an answer of the new server": limits.connect,
      "a statement that changes the schema, for the catalog": limits.catalog,
      "anything, for a host that has vanished": limits.keepAlive,
      "the layer's close": config.shutdownTimeout
    }
    const figures = rows.filter(([, limit]) => /^\d/.test(limit!))
    assert.deepStrictEqual(
      Object.fromEntries(figures.map(([what, limit]) => [what!, /^\d+(?: m?s)?/.exec(limit!)![0]])),
      Object.fromEntries(Object.entries(code).map(([what, limit]) => [what, shown(limit)]))
    )
  })

  it("names an option, or none, for each", () => {
    for (const [what, , option] of rows) assert.match(option!, /^none|^as for|`\w+/, what)
  })

  const shown = (limit: Duration.Duration): string => {
    const millis = Duration.toMillis(limit)
    return millis === 0 ? "0" : millis < 1_000 ? `${millis} ms` : `${millis / 1_000} s`
  }
})

/** A router over fake servers, that come and go with the scope. */
const over = Effect.gen(function* () {
  const servers = [yield* fakeServer.make, yield* fakeServer.make] as const
  const at = ({ port }: fakeServer.Server) => ({ host: "127.0.0.1", port, username: "u", database: "d" })
  const engineOf = (server: fakeServer.Server) => ({ ...at(server), connectTimeout: "300 millis" as const })
  const options = {
    groups: {
      default: [{ ...at(servers[0]), name: "primary" }],
      read: [{ ...at(servers[1]), name: "replica" }]
    },
    health: false,
    shutdownTimeout: "200 millis"
  } as const
  return { servers, options, engineOf }
})

/** How long an effect takes, in milliseconds, and how it ends. */
const timed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const began = performance.now()
    const exit = yield* Effect.exit(effect)
    return { exit, millis: performance.now() - began }
  })

/** The same limit holds for the connection and for the answer on it: either may be the first to be missed. */
const unheard = /no answer within 300ms|not taken a connection within 300 ms/

const silent = (isSilent: (sql: string) => boolean) => (sql: string) => ({
  work: isSilent(sql) ? Number.POSITIVE_INFINITY : 0,
  answer: 0
})

describe("a server that takes connections and never answers", () => {
  it.scopedLive("fails a rebind after connectTimeout, and nothing has moved", () =>
    Effect.gen(function* () {
      const { engineOf, options } = yield* over
      const other = yield* fakeServer.make
      other.delayOf = silent(() => true)
      other.cancelDelay = Number.POSITIVE_INFINITY
      const context = yield* Layer.build(DbRouter.layer(options))
      const router = Context.get(context, DbRouter.DbRouter)
      const { exit, millis } = yield* timed(router.rebind("replica", engineOf(other)))
      assert(Exit.isFailure(exit))
      assert.match(String(Option.getOrThrow(Cause.failureOption(exit.cause)).cause), unheard)
      assert.isBelow(millis, 2_000)
      const sql = Context.get(context, SqlClient.SqlClient)
      assert.strictEqual((yield* DbRouter.replica(sql`SELECT 1`).pipe(Effect.provide(context))).length, 1)
      assert.strictEqual(other.open(), 0)
    })
  )

  it.effect("holds up a token for a second, not for the cancel of the question", () =>
    Effect.gen(function* () {
      const config = Either.getOrThrow(RouterConfig.resolve({ groups: { default: [{}] } }))
      const positions = { isTelling: true, epoch: 0, ask: () => 0 }
      const primary = { positions, query: () => Effect.uninterruptible(Effect.never) }
      const tokens = tokenSource.make({ primary, config } as unknown as Router)
      const verified = yield* Effect.fork(tokens.verify({ system: "1", timeline: 1, lsn: 1n }))
      yield* TestClock.adjust(Duration.subtract(limits.position, "1 millis"))
      assert.isNull(verified.unsafePoll())
      yield* TestClock.adjust("1 millis")
      // What says nothing refutes nothing.
      assert.isTrue(Option.isSome(yield* Fiber.join(verified)))
    })
  )
})

/** Runs an effect where nothing interrupts it, and tells how it ends: in time, or the test fails. */
const uninterruptibly = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const fiber = yield* Effect.forkDaemon(Effect.uninterruptible(effect))
    return yield* Effect.disconnect(Fiber.await(fiber)).pipe(Effect.timeout("10 seconds"))
  })

describe("where nothing interrupts", () => {
  it.scopedLive("a statement waits for a primary for its limit", () =>
    Effect.gen(function* () {
      const { options } = yield* over
      const context = yield* Layer.build(
        DbRouter.layer({ ...options, health: true, waitForPrimary: { statements: "300 millis" } })
      )
      yield* Context.get(context, DbRouter.DbRouter).drain("primary")
      const sql = Context.get(context, SqlClient.SqlClient)
      const began = performance.now()
      const exit = yield* uninterruptibly(sql`INSERT INTO t VALUES (1)`)
      assert(Exit.isFailure(exit))
      assert.deepStrictEqual(
        RouterError.reasonOf(Option.getOrThrow(Cause.failureOption(exit.cause))),
        Option.some("NoEngineAvailable")
      )
      assert.isAtLeast(performance.now() - began, 290)
    })
  )

  it.scopedLive("a rebind has its limit, for the new server and for what yields its configuration", () =>
    Effect.gen(function* () {
      const { engineOf, options } = yield* over
      const other = yield* fakeServer.make
      other.delayOf = silent(() => true)
      other.cancelDelay = Number.POSITIVE_INFINITY
      const router = Context.get(yield* Layer.build(DbRouter.layer(options)), DbRouter.DbRouter)
      for (const [config, why] of [
        [engineOf(other), unheard],
        [Effect.never, /no answer within 5s/],
        [Effect.uninterruptible(Effect.never), /no answer within 5s/]
      ] as const) {
        const exit = yield* uninterruptibly(router.rebind("replica", config))
        assert(Exit.isFailure(exit))
        assert.match(String(Option.getOrThrow(Cause.failureOption(exit.cause)).cause), why)
      }
    })
  )

  it.live("a rebind that waits for its configuration ends with its router, and none begins after that", () =>
    Effect.gen(function* () {
      for (const config of [Effect.never, Effect.uninterruptible(Effect.never)]) {
        const scope = yield* Scope.make()
        const { options } = yield* Scope.extend(over, scope)
        const built = yield* Scope.make()
        const router = Context.get(yield* Scope.extend(Layer.build(DbRouter.layer(options)), built), DbRouter.DbRouter)
        const waiting = yield* Effect.fork(timed(router.rebind("replica", config)))
        yield* Effect.sleep("50 millis")
        yield* Scope.close(built, Exit.void)
        const { exit, millis } = yield* Fiber.join(waiting)
        assert.isBelow(millis, 4_500)
        for (const late of [
          exit,
          yield* Effect.exit(router.rebind("replica", config)),
          yield* Effect.exit(router.drain("replica"))
        ]) {
          assert(Exit.isFailure(late))
          const error = Cause.squash(late.cause)
          const reason =
            error instanceof RouterError.RouterError ? error.reason : Option.getOrUndefined(RouterError.reasonOf(error))
          assert.strictEqual(reason, "RouterClosed")
        }
        yield* Scope.close(scope, Exit.void)
      }
    })
  )

  it.scopedLive("a layer has its limit for a server that takes connections and answers nothing", () =>
    Effect.gen(function* () {
      const { options, servers } = yield* over
      for (const server of servers) {
        server.delayOf = silent(() => true)
        server.cancelDelay = Number.POSITIVE_INFINITY
      }
      const health = { interval: "50 millis", timeout: "50 millis" } as const
      const exit = yield* uninterruptibly(Effect.scoped(Layer.build(DbRouter.layer({ ...options, health }))))
      assert.isTrue(Exit.isFailure(exit))
    })
  )

  it.effect("a request has its limit for a store of tokens", () =>
    Effect.gen(function* () {
      const carrier = HttpSession.tokenStore({ subject: () => Effect.never })
      const request = HttpServerRequest.fromWeb(new Request("http://localhost/"))
      const store = yield* Effect.scoped(Layer.build(KeyValueStore.layerMemory))
      const read = Effect.provide(carrier.read(request, {} as unknown as Tokens), store)
      const reading = yield* Effect.forkDaemon(Effect.uninterruptible(read))
      yield* TestClock.adjust("1 second")
      assert.isNotNull(reading.unsafePoll())
    })
  )
})

describe("what is not ours and never ends", () => {
  const stuck = Effect.uninterruptible(Effect.never)

  it.effect("a topology holds up a session for its timeout; the session begins with what is known", () =>
    Effect.gen(function* () {
      for (const [timeout, limit] of [
        [undefined, limits.beforeSession],
        [Duration.seconds(2), Duration.seconds(2)]
      ] as const) {
        const refresh = new Refresh(stuck, { interval: Duration.infinity, beforeSession: Duration.zero, timeout })
        const sessions = yield* Effect.fork(Effect.replicateEffect(refresh.beforeSession, 3, { concurrency: 3 }))
        yield* TestClock.adjust(Duration.subtract(limit, "1 millis"))
        assert.isNull(sessions.unsafePoll())
        yield* TestClock.adjust("1 millis")
        yield* Fiber.join(sessions)
      }
    })
  )

  it.effect("a store of tokens holds up a request for its timeout", () =>
    Effect.gen(function* () {
      const carrier = HttpSession.tokenStore({ subject: () => stuck })
      const request = HttpServerRequest.fromWeb(new Request("http://localhost/"))
      const store = yield* Effect.scoped(Layer.build(KeyValueStore.layerMemory))
      const none = yield* Deferred.make<never>()
      const tokens = { verify: () => Deferred.await(none) } as unknown as Tokens
      const read = yield* Effect.fork(Effect.exit(Effect.provide(carrier.read(request, tokens), store)))
      yield* TestClock.adjust("1 second")
      assert.isTrue(Exit.isFailure(yield* Fiber.join(read)))
    })
  )

  it.effect("the catalog of a server that does not answer fails the start of the layer", () =>
    Effect.gen(function* () {
      const { options, servers } = yield* over
      servers[0].delayOf = silent((sql) => sql.includes("json_build_object"))
      servers[0].cancelDelay = Number.POSITIVE_INFINITY
      let isAsked = false
      servers[0].onStatement = (sql) => {
        isAsked ||= sql.includes("json_build_object")
      }
      const building = Effect.exit(Effect.scoped(Layer.build(DbRouter.layer(options))))
      const built = yield* Effect.forkDaemon(Effect.uninterruptible(building))
      while (!isAsked) yield* TestServices.provideLive(Effect.sleep("5 millis"))
      yield* TestClock.adjust(Duration.subtract(limits.firstCatalog, "1 second"))
      assert.isNull(built.unsafePoll())
      while (built.unsafePoll() === null) {
        yield* TestClock.adjust("1 second")
        yield* TestServices.provideLive(Effect.sleep("5 millis"))
      }
      const exit = yield* Fiber.join(built)
      assert(Exit.isFailure(exit))
      assert.include(Cause.pretty(exit.cause), "The catalog cannot be read")
      assert.isTrue(Option.isSome(Cause.failureOption(exit.cause)))
    }).pipe(Effect.scoped)
  )
})
