import { HttpServerResponse } from "@effect/platform"
import { SqlClient } from "@effect/sql"
import { assert, layer, type Vitest } from "@effect/vitest"
import { Effect, FiberRef, Option } from "effect"
import { DbRouter, RoutingContext } from "effect-db-router"
import type { PgCluster } from "effect-db-router/testing"
import {
  type Act,
  Conflict,
  eventually,
  Moved,
  nothingIsHeld,
  type Placement,
  placements,
  type Send,
  TestLayer,
  watch
} from "../support/http.js"

/** Requests that are in their handlers, and how those ended. */
const inside = new Map<string, "running" | "interrupted" | "ended">()

const act: Act = (name, id) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const insert = (suffix = "") => sql`INSERT INTO entry VALUES (${id + suffix})`
    yield* insert()
    switch (name) {
      case "status":
        return HttpServerResponse.empty({ status: 404 })
      case "fail":
        return yield* new Conflict()
      case "moved":
        return yield* new Moved()
      case "defect":
        return yield* Effect.dieMessage("a bug")
      case "deferred":
        yield* sql`INSERT INTO child VALUES ('orphan')`
        return HttpServerResponse.unsafeSetCookie(
          HttpServerResponse.text("done", { headers: { location: "/there", "x-done": "yes" } }),
          "token",
          "secret"
        )
      case "caught":
        yield* Effect.ignore(insert())
        return HttpServerResponse.text("done")
      case "hook":
        yield* DbRouter.afterCommit(Effect.zipRight(insert("-after"), Effect.fail("too late to matter")))
        yield* DbRouter.beforeCommit(insert("-before"))
        return HttpServerResponse.text("done")
      case "hang":
        inside.set(id, "running")
        return yield* sql`SELECT pg_sleep(600)`.pipe(
          Effect.as(HttpServerResponse.text("done")),
          Effect.onExit(() => Effect.sync(() => inside.set(id, "ended"))),
          Effect.onInterrupt(() => Effect.sync(() => inside.set(id, "interrupted")))
        )
      case "leak":
        yield* FiberRef.set(RoutingContext.bindGroup, Option.some("default"))
        yield* FiberRef.set(RoutingContext.forcePrimary, true)
        yield* RoutingContext.setStickyPrimary
        return HttpServerResponse.text("leaked")
      case "clean":
        return HttpServerResponse.text(
          JSON.stringify([
            yield* RoutingContext.shouldUsePrimary,
            Option.isSome(yield* FiberRef.get(RoutingContext.bindGroup)),
            yield* DbRouter.isInSession
          ])
        )
    }
    return HttpServerResponse.text("done")
  }).pipe(Effect.catchTag("SqlError", Effect.die))

const post = (send: Send, name: string, id: string) => Effect.promise(() => send(`/act/${name}/${id}`))

const names = Object.entries(placements)

layer(TestLayer, { excludeTestServices: true, timeout: "2 minutes" })("the request scope", (it) => {
  it.scoped("has committed when the head of the response is there: 1,000 of 1,000, in all placements", () =>
    Effect.gen(function* () {
      const { exists } = yield* watch
      const perPlacement = Math.ceil(1000 / names.length)
      const seen = yield* Effect.forEach(names, ([name, placement], i) =>
        Effect.gen(function* () {
          const send = yield* placement(act)
          const found = yield* Effect.forEach(
            Array.from({ length: perPlacement }, (_, k) => `head-${i}-${k}`),
            (id) =>
              Effect.promise(async () => {
                let found: Promise<boolean> | undefined
                const answer = await send(`/act/write/${id}`, { atHead: () => (found = exists(id)) })
                assert.strictEqual(answer.status, 200)
                return await found!
              }),
            { concurrency: 8 }
          )
          return [name, found.filter((found) => found).length]
        })
      )
      assert.deepStrictEqual(
        seen,
        names.map(([name]) => [name, perPlacement])
      )
      yield* nothingIsHeld
    })
  )

  for (const [name, placement] of names) tests(it, name, placement)
})

function tests(
  it: Vitest.MethodsNonLive<DbRouter.Services | PgCluster.PgCluster, true>,
  name: string,
  placement: Placement
): void {
  const outcome = (send: Send, what: string) =>
    Effect.gen(function* () {
      const { exists } = yield* watch
      const id = `${what}-${name}`.replaceAll(/\W+/g, "-")
      const { body, headers, status } = yield* post(send, what, id)
      return { status, committed: yield* Effect.promise(() => exists(id)), body, headers, id }
    })

  it.scoped(`commits by the status: ${name}`, () =>
    Effect.gen(function* () {
      const send = yield* placement(act)
      const outcomes = yield* Effect.forEach(["write", "status", "fail", "moved", "defect"], (what) =>
        Effect.map(outcome(send, what), ({ committed, status }) => [what, status, committed])
      )
      assert.deepStrictEqual(outcomes, [
        ["write", 200, true],
        ["status", 404, false],
        ["fail", 409, false],
        ["moved", 303, true],
        ["defect", 500, false]
      ])
      yield* nothingIsHeld
    })
  )

  it.scoped(`answers 500, without what the handler has promised, when the COMMIT fails: ${name}`, () =>
    Effect.gen(function* () {
      const send = yield* placement(act)
      for (const what of ["deferred", "caught"]) {
        const { body, committed, headers, status } = yield* outcome(send, what)
        assert.deepStrictEqual([what, status, committed, body], [what, 500, false, ""])
        assert.deepStrictEqual(
          ["set-cookie", "location", "x-done"].filter((header) => headers.has(header)),
          []
        )
      }
      yield* nothingIsHeld
    })
  )

  it.scoped(`interrupts the handler and rolls back when the client hangs up: ${name}`, () =>
    Effect.gen(function* () {
      const send = yield* placement(act)
      const { exists } = yield* watch
      const id = `hang-${name}`.replaceAll(/\W+/g, "-")
      const hangUp = new AbortController()
      const request = send(`/act/hang/${id}`, { signal: hangUp.signal }).then(
        ({ status }) => status,
        () => "no answer"
      )
      yield* eventually(
        Effect.sync(() => inside.get(id) === "running"),
        "the handler runs"
      )
      hangUp.abort()
      yield* eventually(
        Effect.sync(() => inside.get(id) === "interrupted"),
        "the handler is interrupted"
      )
      yield* nothingIsHeld
      assert.include(["no answer", 499], yield* Effect.promise(() => request))
      assert.isFalse(yield* Effect.promise(() => exists(id)))
    })
  )

  it.scoped(`runs what comes before and after the COMMIT before it answers: ${name}`, () =>
    Effect.gen(function* () {
      const send = yield* placement(act)
      const { exists } = yield* watch
      const { committed, id, status } = yield* outcome(send, "hook")
      assert.deepStrictEqual([status, committed], [200, true])
      assert.isTrue(yield* Effect.promise(() => exists(`${id}-before`)))
      assert.isTrue(yield* Effect.promise(() => exists(`${id}-after`)))
      yield* nothingIsHeld
    })
  )

  it.scoped(`leaks nothing into the next request of the connection: ${name}`, () =>
    Effect.gen(function* () {
      // Nor does the program around the server.
      yield* RoutingContext.setStickyPrimary
      yield* FiberRef.set(RoutingContext.bindGroup, Option.some("nowhere"))
      const send = yield* placement(act)
      yield* outcome(send, "leak")
      assert.deepStrictEqual(JSON.parse((yield* outcome(send, "clean")).body), [false, false, true])
      yield* nothingIsHeld
    })
  )
}
