import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Exit, Fiber, Logger, LogLevel, Ref, Scope, TestClock } from "effect"
import { SqlClassifier } from "effect-db-router"

const catalog = (tables: ReadonlyArray<string>): SqlClassifier.Catalog => ({
  version: 180004,
  standardStrings: true,
  volatileBuiltins: [],
  functions: {},
  relations: { public: { reads: tables, others: {} } },
  types: {},
  operators: {},
  attributes: {}
})

const quiet = Logger.withMinimumLogLevel(LogLevel.None)

describe("a classifier with a catalog", () => {
  it.scoped("is not built when the catalog cannot be read", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(SqlClassifier.fromCatalog({ load: Effect.fail("down") }))
      assert.deepStrictEqual(exit, Exit.fail("down"))
    })
  )

  it.scoped("reads the catalog again, on its own and when asked", () =>
    Effect.gen(function* () {
      const tables = yield* Ref.make<ReadonlyArray<string>>(["a"])
      const load = Effect.map(Ref.get(tables), catalog)
      const classifier = yield* SqlClassifier.fromCatalog({ load, refreshInterval: "10 seconds" })
      const kinds = () => ["a", "b", "c"].map((name) => classifier.classify(`table ${name}`).kind)
      assert.deepStrictEqual(kinds(), ["read", "write", "write"])

      yield* Ref.set(tables, ["a", "b"])
      assert.deepStrictEqual(kinds(), ["read", "write", "write"])
      yield* TestClock.adjust("12 seconds")
      assert.deepStrictEqual(kinds(), ["read", "read", "write"])

      yield* Ref.set(tables, ["c"])
      yield* classifier.refresh
      assert.deepStrictEqual(kinds(), ["write", "write", "read"])
    })
  )

  it.scoped("has a limit for a refresh that nothing interrupts, too", () =>
    Effect.gen(function* () {
      let isSilent = false
      const load = Effect.suspend(() => (isSilent ? Effect.never : Effect.succeed(catalog(["a"]))))
      const { refresh } = yield* SqlClassifier.fromCatalog({ load, refreshInterval: Duration.infinity })
      isSilent = true
      const fiber = yield* Effect.fork(quiet(Effect.uninterruptible(refresh)))
      yield* TestClock.adjust("10 seconds")
      assert.isNotNull(fiber.unsafePoll())
    })
  )

  it.effect("leaves no work behind when its scope closes", () =>
    Effect.gen(function* () {
      const loads = yield* Ref.make(0)
      const load = Effect.as(
        Ref.update(loads, (n) => n + 1),
        catalog([])
      )
      const scope = yield* Scope.make()
      yield* Scope.extend(SqlClassifier.fromCatalog({ load, refreshInterval: "1 second" }), scope)
      yield* TestClock.adjust("5 seconds")
      const before = yield* Ref.get(loads)
      assert.isAbove(before, 3)
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* Ref.get(loads), before)
    })
  )

  it.scoped("never refreshes on its own with an infinite interval", () =>
    Effect.gen(function* () {
      const loads = yield* Ref.make(0)
      const load = Effect.as(
        Ref.update(loads, (n) => n + 1),
        catalog([])
      )
      yield* SqlClassifier.fromCatalog({ load, refreshInterval: Duration.infinity })
      yield* TestClock.adjust("10 days")
      assert.strictEqual(yield* Ref.get(loads), 1)
    })
  )

  it.scoped("keeps its snapshot when the catalog cannot be read, and recovers", () =>
    Effect.gen(function* () {
      const next = yield* Ref.make<Effect.Effect<SqlClassifier.Catalog, string>>(Effect.succeed(catalog(["a"])))
      const load = Effect.flatten(Ref.get(next))
      const classifier = yield* SqlClassifier.fromCatalog({ load, refreshInterval: "10 seconds" })
      const kind = () => classifier.classify("table a").kind

      for (const failure of [Effect.fail("down"), Effect.die("broken"), Effect.sync(() => JSON.parse("{"))]) {
        yield* Ref.set(next, failure)
        yield* quiet(classifier.refresh)
        assert.strictEqual(kind(), "read")
      }
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(kind(), "read")
      yield* Ref.set(next, Effect.succeed(catalog([])))
      yield* TestClock.adjust("12 seconds")
      assert.strictEqual(kind(), "write")
    }).pipe(quiet)
  )

  it.scoped("shares one reading among refreshes that wait, and begins it after all of them were asked for", () =>
    Effect.gen(function* () {
      const tables = yield* Ref.make<ReadonlyArray<string>>([])
      const loads = yield* Ref.make(0)
      const gate = yield* Deferred.make<void>()
      const load = Effect.gen(function* () {
        const count = yield* Ref.updateAndGet(loads, (n) => n + 1)
        const seen = yield* Ref.get(tables)
        if (count === 2) yield* Deferred.await(gate)
        return catalog(seen)
      })
      const classifier = yield* SqlClassifier.fromCatalog({ load, refreshInterval: Duration.infinity })
      const first = yield* Effect.fork(classifier.refresh)
      yield* Effect.yieldNow()
      // The reading under way has not seen this table: it must not serve those who ask from here on.
      yield* Ref.set(tables, ["new"])
      const others = yield* Effect.forkAll(Array.from({ length: 20 }, () => classifier.refresh))
      yield* Effect.yieldNow()
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(others)
      yield* Fiber.join(first)
      assert.strictEqual(yield* Ref.get(loads), 3)
      assert.strictEqual(classifier.classify("table new").kind, "read")
    })
  )

  it.scoped("does not wait for ever for a server that does not answer", () =>
    Effect.gen(function* () {
      const next = yield* Ref.make<Effect.Effect<SqlClassifier.Catalog>>(Effect.succeed(catalog(["a"])))
      const classifier = yield* SqlClassifier.fromCatalog({
        load: Effect.flatten(Ref.get(next)),
        refreshInterval: Duration.infinity
      })
      yield* Ref.set(next, Effect.uninterruptible(Effect.never))
      const stuck = yield* Effect.fork(quiet(classifier.refresh))
      yield* TestClock.adjust("11 seconds")
      yield* Fiber.join(stuck)
      assert.strictEqual(classifier.classify("table a").kind, "read")
      yield* Ref.set(next, Effect.succeed(catalog([])))
      yield* classifier.refresh
      assert.strictEqual(classifier.classify("table a").kind, "write")
    })
  )

  it.scoped("completes no waiting request by a refresh that was interrupted", () =>
    Effect.gen(function* () {
      let hangs = false
      let loads = 0
      let tables = ["a"]
      const load = Effect.suspend(() => {
        loads++
        return hangs ? Effect.never : Effect.succeed(catalog(tables))
      })
      const hasBegun = (count: number) => Effect.repeat(Effect.yieldNow(), { until: () => loads === count })
      const classifier = yield* SqlClassifier.fromCatalog({ load, refreshInterval: Duration.infinity })
      hangs = true
      const first = yield* Effect.fork(classifier.refresh)
      yield* hasBegun(2)
      const second = yield* Effect.fork(classifier.refresh)
      const third = yield* Effect.fork(classifier.refresh)
      yield* Effect.yieldNow()
      yield* Fiber.interrupt(first)
      yield* hasBegun(3)
      hangs = false
      tables = ["b"]
      yield* Fiber.interrupt(second)
      yield* Fiber.join(third)
      assert.strictEqual(loads, 4)
      assert.strictEqual(classifier.classify("table b").kind, "read")
    })
  )

  it.scoped("analyses no backslash where plain strings may be escaped", () =>
    Effect.gen(function* () {
      const load = Effect.succeed({ ...catalog(["a"]), standardStrings: false })
      const { classify } = yield* SqlClassifier.fromCatalog({ load, refreshInterval: Duration.infinity })
      // With the setting off, the first constant ends before the semicolon.
      const sql = "select '\\', '; delete from a; --'"
      assert.strictEqual(classify(sql).kind, "write")
      const standard = yield* SqlClassifier.fromCatalog({ load: Effect.succeed(catalog(["a"])) })
      assert.strictEqual(standard.classify(sql).kind, "read")
      assert.strictEqual(classify("select 'plain' from a").kind, "read")
    })
  )

  it.scoped("counts a function of PostgreSQL that this server calls volatile as such", () =>
    Effect.gen(function* () {
      const load = Effect.succeed({ ...catalog([]), volatileBuiltins: ["lower", "random"] })
      const { classify } = yield* SqlClassifier.fromCatalog({ load, refreshInterval: Duration.infinity })
      assert.strictEqual(classify("select lower('A')").reason, "calls lower")
      assert.strictEqual(classify("select upper('a'), random()").kind, "read")
    })
  )
})

describe("a name that the catalog does not know", () => {
  const known = (tables: Ref.Ref<ReadonlyArray<string>>, counts: { stamps: number; loads: number }, millis = 0) => ({
    load: Effect.zipRight(
      Effect.sync(() => counts.loads++),
      Effect.delay(Effect.map(Ref.get(tables), catalog), millis)
    ),
    stamp: Effect.zipRight(
      Effect.sync(() => counts.stamps++),
      Effect.map(Ref.get(tables), (all) => all.join())
    ),
    refreshInterval: Duration.infinity
  })

  it.scoped("has the catalog read at once, and is known then", () =>
    Effect.gen(function* () {
      const tables = yield* Ref.make<ReadonlyArray<string>>(["a"])
      const counts = { stamps: 0, loads: 0 }
      const { classify, isGuess } = yield* SqlClassifier.fromCatalog(known(tables, counts))
      yield* Ref.set(tables, ["a", "b"])
      assert.deepStrictEqual([classify("table b").kind, isGuess?.("table b")], ["write", true])
      assert.deepStrictEqual([classify("delete from b").kind, isGuess?.("delete from b")], ["write", false])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual([classify("table b").kind, isGuess?.("table b")], ["read", false])
    })
  )

  it.scoped("that there is not costs one small question a second, and no reading", () =>
    Effect.gen(function* () {
      const counts = { stamps: 0, loads: 0 }
      const { classify } = yield* SqlClassifier.fromCatalog(known(yield* Ref.make<ReadonlyArray<string>>([]), counts))
      for (let i = 0; i < 1_000; i++) {
        assert.strictEqual(classify(`table unknown_${i}`).kind, "write")
        assert.strictEqual(classify("table always").kind, "write")
        yield* TestClock.adjust("10 millis")
      }
      // The first one, because the stamp was not known before.
      assert.strictEqual(counts.loads, 2)
      assert.isAtMost(counts.stamps, 11)
      assert.isAtLeast(counts.stamps, 9)
    })
  )

  it.scoped("takes a twentieth of the time at most, where the catalog changes all the time", () =>
    Effect.gen(function* () {
      const tables = yield* Ref.make<ReadonlyArray<string>>([])
      const counts = { stamps: 0, loads: 0 }
      // Built in the background, for the clock is the test's.
      const building = yield* Effect.fork(SqlClassifier.fromCatalog(known(tables, counts, 500)))
      yield* TestClock.adjust("1 second")
      const { classify } = yield* Fiber.join(building)
      for (let i = 0; i < 1_000; i++) {
        yield* Ref.update(tables, (all) => [...all, `t_${i}`])
        classify("table always")
        yield* TestClock.adjust("100 millis")
      }
      assert.isAtMost(counts.loads, 1 + 11)
      assert.isAtLeast(counts.loads, 1 + 8)
    })
  )

  it.scoped("is looked up again although the server did not answer", () =>
    Effect.gen(function* () {
      const answers = yield* Ref.make(false)
      const tables = yield* Ref.make<ReadonlyArray<string>>(["a"])
      const { load, stamp } = known(tables, { stamps: 0, loads: 0 })
      const { classify } = yield* SqlClassifier.fromCatalog({
        load,
        stamp: Effect.flatMap(Ref.get(answers), (is) => (is ? stamp : Effect.never)),
        refreshInterval: Duration.infinity
      })
      yield* Ref.set(tables, ["a", "b"])
      classify("table b")
      yield* TestClock.adjust("11 seconds")
      yield* Ref.set(answers, true)
      classify("table b")
      yield* TestClock.adjust("4 minutes")
      assert.strictEqual(classify("table b").kind, "read")
    })
  )
})

describe("what a standby refused", () => {
  it.scoped("is forgotten after a minute, and with the next catalog", () =>
    Effect.gen(function* () {
      const tables = yield* Ref.make<ReadonlyArray<string>>(["a"])
      const classifier = yield* SqlClassifier.fromCatalog({
        load: Effect.map(Ref.get(tables), catalog),
        refreshInterval: Duration.infinity
      })
      const kind = () => classifier.classify("table a").kind
      assert.strictEqual(kind(), "read")
      classifier.remember("table a", "a standby refused it (25006)")
      assert.deepStrictEqual([kind(), classifier.isGuess?.("table a")], ["write", true])
      yield* TestClock.adjust("59 seconds")
      yield* classifier.refresh
      assert.strictEqual(kind(), "write", "the same catalog")
      yield* TestClock.adjust("1 second")
      assert.strictEqual(kind(), "read")
      classifier.remember("table a", "a standby refused it (25006)")
      assert.strictEqual(kind(), "write")
      yield* Ref.set(tables, ["a", "b"])
      yield* classifier.refresh
      assert.strictEqual(kind(), "read")
    })
  )
})
