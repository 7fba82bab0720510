import { assert, describe, it } from "@effect/vitest"
import { Cause, Chunk, Data, Duration, Either, Exit, HashMap, HashSet, List, Option, Redacted } from "effect"

describe("deep equality of tests", () => {
  const values: Record<string, ReadonlyArray<unknown>> = {
    Option: [
      Option.none(),
      Option.some(undefined),
      Option.some(1),
      Option.some(2),
      Option.some(Option.none()),
      undefined
    ],
    Redacted: [Redacted.make(1), Redacted.make(2), {}],
    Either: [Either.left(1), Either.left(2), Either.right(1), Either.right(2), Either.right(undefined)],
    Exit: [Exit.succeed(1), Exit.succeed(2), Exit.fail(1), Exit.fail(2), Exit.die(1), Exit.void],
    Cause: [Cause.empty, Cause.fail(1), Cause.fail(2), Cause.die(1)],
    Chunk: [Chunk.empty(), Chunk.make(1), Chunk.make(2)],
    HashMap: [HashMap.empty(), HashMap.make(["a", 1]), HashMap.make(["a", 2])],
    HashSet: [HashSet.empty(), HashSet.make(1), HashSet.make(2)],
    List: [List.empty(), List.make(1), List.make(2)],
    Duration: [Duration.zero, Duration.millis(1), Duration.infinity],
    Data: [Data.struct({ a: 1 }), Data.struct({ a: 2 })],
    Error: [new Error("a"), new Error("b")]
  }
  for (const [name, all] of Object.entries(values)) {
    it(`tells each ${name} from every other, also inside of something`, () => {
      for (const [i, left] of all.entries()) {
        for (const [j, right] of all.entries()) {
          for (const [a, b] of [
            [left, right],
            [[left], [right]],
            [{ a: [left] }, { a: [right] }],
            [Exit.succeed(left), Exit.succeed(right)],
            [new Map([[1, left]]), new Map([[1, right]])]
          ]) {
            if (i === j) assert.deepStrictEqual(a, b)
            else assert.throws(() => assert.deepStrictEqual(a, b))
          }
        }
      }
    })
  }
})
