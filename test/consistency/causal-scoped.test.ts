/** What the session of a scope has written, the flow that closes the scope has seen. */
import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, FiberRefs, Layer, Runtime, Scope, Stream } from "effect"
import { Consistency, DbRouter, RoutingContext, Session } from "effect-db-router"
import * as Causal from "../support/causal.js"

const { insert, newId, sees, standingStill } = Causal

const inScope = (id: number) => Effect.scoped(Effect.zipRight(Session.scoped(), insert(id)))

/** Runs an effect in a fiber that has no flow yet, as a program begins. */
const first = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, never, R> =>
  Effect.flatMap(Effect.runtime<R>(), (runtime) =>
    Effect.promise(() =>
      Runtime.runPromise(Runtime.updateFiberRefs(runtime, (refs) => FiberRefs.delete(refs, RoutingContext.flow)))(
        effect
      )
    )
  )

const opened = Effect.gen(function* () {
  const scope = yield* Scope.make()
  yield* Scope.extend(Session.scoped(), scope)
  return scope
})

const ways = {
  "closes with an effect": inScope,
  "is closed by hand": (id: number) =>
    Effect.flatMap(opened, (scope) => Effect.zipRight(insert(id), Scope.close(scope, Exit.void))),
  "is closed by a fiber that has not opened it": (id: number) =>
    Effect.gen(function* () {
      const scope = yield* Effect.flatMap(
        Effect.fork(Effect.flatMap(opened, (scope) => Effect.as(insert(id), scope))),
        (fiber) => Effect.flatMap(Fiber.await(fiber), (exit) => exit)
      )
      yield* Scope.close(scope, Exit.void)
    }),
  "is that of a layer": (id: number) => Effect.provide(insert(id), Layer.scopedDiscard(Session.scoped())),
  "is that of a stream": (id: number) =>
    Stream.runDrain(Stream.flatMap(Stream.scoped(Session.scoped()), () => Stream.fromEffect(insert(id)))),
  "has a session of its own inside": (id: number) =>
    Effect.scoped(Effect.zipRight(Session.scoped(), DbRouter.newSession(insert(id)))),
  "is resumed in its run": (id: number) =>
    Effect.scoped(Effect.flatMap(Session.scoped(), (session) => session.run(insert(id))))
} as const

layer(Causal.layer({ consistency: Consistency.causal({ wait: 0 }) }), {
  excludeTestServices: true,
  timeout: "2 minutes"
})("causal", (it) => {
  for (const [name, write] of Object.entries(ways)) {
    it.effect(`sees what the session of a scope has written that ${name}`, () =>
      Effect.gen(function* () {
        const id = yield* newId
        yield* standingStill(
          first(
            Effect.gen(function* () {
              yield* write(id)
              assert.isTrue(yield* sees(id))
              const token = yield* Consistency.currentToken
              assert.strictEqual(token._tag, "Some")
            })
          )
        )
      })
    )
  }
})

layer(Causal.layer({ consistency: Consistency.window("1 minute") }), {
  excludeTestServices: true,
  timeout: "2 minutes"
})("window", (it) => {
  it.effect("counts from the commit of the session of a scope", () =>
    Effect.gen(function* () {
      const id = yield* newId
      yield* standingStill(
        first(
          Effect.gen(function* () {
            yield* inScope(id)
            assert.isTrue(yield* sees(id))
          })
        )
      )
    })
  )
})
