import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { SqlClassifier } from "effect-db-router"
import * as Classify from "../../src/internal/classifier/classify.js"
import { builtin } from "../../src/internal/classifier/knowledge.js"
import * as Parser from "../../src/internal/classifier/parser.js"

describe("the cache of a classifier", () => {
  it.effect("stays bounded under 100,000 different statements and refusals", () =>
    Effect.gen(function* () {
      yield* Effect.promise(Parser.load)
      const core = Classify.make(builtin, 1_000)
      for (let i = 0; i < 100_000; i++) {
        if (i % 10 === 0) core.remember(`select refused(${i})`, "a standby refused it")
        assert.strictEqual(core.classify(`set a = ${i}`).kind, "session")
      }
      assert.isAtMost(core.held().entries, 1_000 + 2_000)
      assert.strictEqual(core.classify("select refused(99990)").reason, "a standby refused it")
      assert.notStrictEqual(core.classify("select refused(0)").reason, "a standby refused it")
    })
  )

  it.effect("of no size changes no answer", () =>
    Effect.gen(function* () {
      const { classify } = yield* SqlClassifier.makeWith({ cacheSize: 0 })
      assert.deepStrictEqual(classify("select 1"), classify("select 1"))
      assert.strictEqual(classify("delete from users").kind, "write")
    })
  )
})

describe("what a standby refused", () => {
  it.effect("is a write from then on, for that reason", () =>
    Effect.gen(function* () {
      const classifier = yield* SqlClassifier.make
      assert.strictEqual(classifier.classify("select * from t").kind, "read")
      classifier.remember("select * from t", "refused with 25006")
      assert.deepStrictEqual(classifier.classify("select * from t"), {
        kind: "write",
        reason: "refused with 25006",
        changesSchema: false
      })
      assert.strictEqual(classifier.classify("select * from t ").kind, "read")
      yield* classifier.refresh
      assert.strictEqual(classifier.classify("select * from t").reason, "refused with 25006")
    })
  )
})
