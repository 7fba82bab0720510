import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { SqlClassifier } from "effect-db-router"
import * as Cache from "../src/internal/classifier/cache.js"
import * as Classify from "../src/internal/classifier/classify.js"
import { builtin } from "../src/internal/classifier/knowledge.js"
import * as Parser from "../src/internal/classifier/parser.js"

describe("the cache of a classifier", () => {
  it("never holds more entries, or more text, than it may", () => {
    const cache = Cache.make<number>(100, 10_000)
    for (let i = 0; i < 5_000; i++) {
      cache.set(`${i}`.padEnd(i % 400), i)
      const { entries, units } = cache.size()
      assert.isAtMost(entries, 100)
      assert.isAtMost(units, 10_000)
    }
  })

  it("keeps what was used last, for at least half of its size", () => {
    const cache = Cache.make<number>(100, 1_000_000)
    for (let i = 0; i < 1_000; i++) {
      cache.set(`${i}`, i)
      // Used all the time, so never dropped.
      assert.strictEqual(cache.get("0"), 0)
      for (let back = 0; back < 49 && back <= i; back++) assert.strictEqual(cache.get(`${i - back}`), i - back)
    }
    assert.isUndefined(cache.get("1"))
  })

  it("counts a text once, however often it is set", () => {
    const cache = Cache.make<number>(10, 1_000)
    for (let i = 0; i < 100; i++) cache.set("the same", i)
    assert.deepStrictEqual(cache.size(), { entries: 1, units: 8 })
    assert.strictEqual(cache.get("the same"), 99)
  })

  it("does not take a text that would push out all others", () => {
    const cache = Cache.make<number>(10, 1_000)
    cache.set("small", 1)
    cache.set("x".repeat(501), 2)
    assert.strictEqual(cache.get("small"), 1)
    assert.isUndefined(cache.get("x".repeat(501)))
  })

  it("can be turned off", () => {
    const cache = Cache.make<number>(0, 1_000)
    cache.set("a", 1)
    assert.isUndefined(cache.get("a"))
    assert.deepStrictEqual(cache.size(), { entries: 0, units: 0 })
  })

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
