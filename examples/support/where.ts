import { Effect, Tracer } from "effect"

/** Runs an effect, and tells on which engines its statements ran, in their order: their spans say so. */
export const ranOn = <A, E, R>(
  effect: Effect.Effect<A, E, R>
): Effect.Effect<readonly [A, ReadonlyArray<unknown>], E, R> =>
  Effect.gen(function* () {
    const engines: Array<unknown> = []
    const tracer = yield* Effect.tracer
    const noting = Tracer.make({
      span: (...args) => {
        const span = tracer.span(...args)
        const attribute = span.attribute.bind(span)
        span.attribute = (key, value) => {
          if (key === "db.router.engine") engines.push(value)
          attribute(key, value)
        }
        return span
      },
      context: (run, fiber) => tracer.context(run, fiber)
    })
    return [yield* Effect.withTracer(effect, noting), engines] as const
  })
