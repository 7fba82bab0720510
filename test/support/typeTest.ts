/** What the tests of types begin with. */
import { Effect, Stream } from "effect"

export interface A {
  readonly a: 1
}
export interface E {
  readonly e: 2
}
export interface R {
  readonly r: 3
}

export const effect: Effect.Effect<A, E, R> = Effect.never
export const stream: Stream.Stream<A, E, R> = Stream.never

/** Types only: nothing here is run. */
export const check = (_types: () => void) => () => {}
