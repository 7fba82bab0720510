import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Either, Fiber, Logger, Metric, Option, Redacted, TestClock } from "effect"
import { type Position, Telemetry, Token } from "effect-db-router"
import { isBefore, type Settled, Tokens } from "../../src/internal/tokens/tokens.js"
import { Later, seldom } from "../../src/internal/util/later.js"

const keys = Either.getOrThrow(Token.keys([Redacted.make("a key of thirty-two bytes or more")]))
const lifetime = Duration.seconds(60)

const at = (lsn: bigint, timeline = 2): Position.Position => ({ system: "7", timeline, lsn })

/** A primary at a position, which says so when it is asked. */
const primary = (options: {
  readonly known?: Position.Position
  readonly now?: Position.Position
  readonly settled?: Settled
  readonly system?: string
  readonly promoted?: Position.Position
}) => {
  const state = { ...options, asked: 0, looked: 0, held: undefined as Deferred.Deferred<void> | undefined }
  const tokens = new Tokens(
    { keys, lifetime },
    {
      known: () => state.known,
      system: () => state.system,
      ask: Effect.gen(function* () {
        state.asked++
        const answer = state.now
        if (state.held !== undefined) yield* Deferred.await(state.held)
        if (answer !== undefined) state.known = answer
        return answer
      }),
      look: new Later(
        seldom(
          Effect.sync(() => {
            state.looked++
            if (state.promoted !== undefined) state.now = state.promoted
          })
        )
      ).get,
      settled: () => Effect.succeed(state.settled ?? { positions: [], isOpen: false })
    }
  )
  return { state, tokens }
}

const tokenOf = (position: Position.Position, expiresAt = 60_000) => Token.encode(keys, position, { expiresAt })

const rejected = (reason: string) =>
  Effect.map(
    Metric.value(Metric.tagged(Telemetry.rejectedTokens, Telemetry.attributes.errorType, reason)),
    ({ count }) => count
  )

describe("a token is believed", () => {
  it.effect("when the primary was there when it last said so, without asking", () =>
    Effect.gen(function* () {
      const { state, tokens } = primary({ known: at(100n) })
      for (const position of [at(100n), at(1n), at(2n ** 60n, 1)]) {
        assert.deepStrictEqual(yield* tokens.accept(tokenOf(position)), Option.some(position))
      }
      assert.strictEqual(state.asked, 0)
    })
  )

  it.effect("when the primary is there by now, asked once", () =>
    Effect.gen(function* () {
      const { state, tokens } = primary({ known: at(100n), now: at(200n) })
      assert.deepStrictEqual(yield* tokens.accept(tokenOf(at(150n))), Option.some(at(150n)))
      assert.deepStrictEqual(yield* tokens.accept(tokenOf(at(160n))), Option.some(at(160n)))
      assert.strictEqual(state.asked, 1)
    })
  )

  it.effect("when the primary says nothing, so that nothing refutes the token", () =>
    Effect.gen(function* () {
      const { tokens } = primary({})
      assert.deepStrictEqual(yield* tokens.accept(tokenOf(at(150n))), Option.some(at(150n)))
    })
  )

  it.effect("when it is of a newer timeline, and one of the servers turns out to be its primary", () =>
    Effect.gen(function* () {
      const { state, tokens } = primary({ known: at(100n), now: at(100n), promoted: at(90n, 3) })
      assert.deepStrictEqual(yield* tokens.accept(tokenOf(at(80n, 3))), Option.some(at(80n, 3)))
      assert.strictEqual(state.looked, 1)
    })
  )

  for (const [reason, text] of [
    ["tooLong", "A".repeat(10_000)],
    ["malformed", "é"],
    ["version", "A".repeat(80)],
    ["signature", `${tokenOf(at(1n)).slice(0, 60)}${"A".repeat(20)}`],
    ["expired", tokenOf(at(1n), 0)],
    ["impossible", tokenOf(at(201n))],
    ["impossible", tokenOf(at(1n, 3))],
    ["impossible", tokenOf({ ...at(1n), system: "8" })]
  ] as const) {
    it.effect(`never when it is ${reason}, and that is counted (${text.slice(0, 24)})`, () =>
      Effect.gen(function* () {
        const { tokens } = primary({ known: at(100n), now: at(200n) })
        const before = yield* rejected(reason)
        assert.deepStrictEqual(yield* tokens.accept(text), Option.none())
        assert.strictEqual(yield* rejected(reason), before + 1)
      })
    )
  }

  it.effect("no longer than it is good for", () =>
    Effect.gen(function* () {
      const { tokens } = primary({ known: at(100n) })
      const token = yield* tokens.issue(at(50n))
      yield* TestClock.adjust("59 seconds")
      assert.isTrue(Option.isSome(yield* tokens.accept(token)))
      yield* TestClock.adjust("1 second")
      assert.isTrue(Option.isNone(yield* tokens.accept(token)))
    })
  )
})

describe("the primary is asked about tokens", () => {
  it.effect("twice for a thousand impossible tokens at once", () =>
    Effect.gen(function* () {
      const { state, tokens } = primary({ known: at(100n), now: at(200n) })
      state.held = yield* Deferred.make<void>()
      const one = yield* Effect.fork(tokens.accept(tokenOf(at(300n))))
      yield* Effect.yieldNow()
      const others = yield* Effect.fork(
        Effect.forEach(Array.from({ length: 1_000 }), () => tokens.accept(tokenOf(at(300n))), {
          concurrency: "unbounded"
        })
      )
      for (let i = 0; i < 10; i++) yield* Effect.yieldNow()
      yield* Deferred.succeed(state.held, undefined)
      assert.isTrue(Option.isNone(yield* Fiber.join(one)))
      assert.isTrue((yield* Fiber.join(others)).every(Option.isNone))
      assert.strictEqual(state.asked, 2)
    })
  )

  it.effect("and all servers are looked at, for newer timelines only, ten times a second at most", () =>
    Effect.gen(function* () {
      const { state, tokens } = primary({ known: at(100n), now: at(200n) })
      yield* tokens.accept(tokenOf(at(300n)))
      yield* tokens.accept(`${tokenOf(at(1n, 3)).slice(0, 60)}${"A".repeat(20)}`)
      assert.strictEqual(state.looked, 0)
      const newer = tokens.accept(tokenOf(at(1n, 3)))
      yield* newer
      const others = yield* Effect.fork(
        Effect.forEach(Array.from({ length: 1_000 }), () => newer, { concurrency: "unbounded" })
      )
      for (let i = 0; i < 20; i++) yield* Effect.yieldNow()
      yield* TestClock.adjust("99 millis")
      assert.strictEqual(state.looked, 1)
      yield* TestClock.adjust("1 millis")
      assert.isTrue((yield* Fiber.join(others)).every(Option.isNone))
      assert.strictEqual(state.looked, 2)
    })
  )

  it.effect("again for a token that came while it was asked: its answer may be older than that", () =>
    Effect.gen(function* () {
      const { state, tokens } = primary({ known: at(100n), now: at(200n) })
      state.held = yield* Deferred.make<void>()
      const early = yield* Effect.fork(tokens.accept(tokenOf(at(300n))))
      for (let i = 0; i < 10; i++) yield* Effect.yieldNow()
      assert.strictEqual(state.asked, 1)
      state.now = at(400n)
      const late = yield* Effect.fork(tokens.accept(tokenOf(at(400n))))
      for (let i = 0; i < 10; i++) yield* Effect.yieldNow()
      yield* Deferred.succeed(state.held, undefined)
      assert.isTrue(Option.isNone(yield* Fiber.join(early)))
      assert.isTrue(Option.isSome(yield* Fiber.join(late)))
    })
  )

  it.effect("for others, when who asked first has left", () =>
    Effect.gen(function* () {
      const { state, tokens } = primary({ known: at(100n), now: at(200n) })
      state.held = yield* Deferred.make<void>()
      const first = yield* Effect.fork(tokens.accept(tokenOf(at(150n))))
      for (let i = 0; i < 10; i++) yield* Effect.yieldNow()
      const second = yield* Effect.fork(tokens.accept(tokenOf(at(150n))))
      for (let i = 0; i < 10; i++) yield* Effect.yieldNow()
      yield* Fiber.interrupt(first)
      yield* Deferred.succeed(state.held, undefined)
      assert.isTrue(Option.isSome(yield* Fiber.join(second)))
    })
  )
})

describe("what a flow tells others", () => {
  it.effect("is the furthest position, on the last timeline, of the system of the primary", () =>
    Effect.gen(function* () {
      const positions = [at(900n, 1), at(5n), { ...at(999n), system: "8" }]
      const { state, tokens } = primary({ known: at(100n), settled: { positions, isOpen: false } })
      assert.deepStrictEqual(yield* tokens.position, at(5n))
      state.settled = { positions: [], isOpen: false }
      assert.isUndefined(yield* tokens.position)
      assert.strictEqual(state.asked, 0)
    })
  )

  it.effect("is where the primary is, when it does not know how far it has come", () =>
    Effect.gen(function* () {
      const { tokens } = primary({ known: at(100n), now: at(200n), settled: { positions: [at(5n)], isOpen: true } })
      assert.deepStrictEqual(yield* tokens.position, at(200n))
    })
  )

  it.effect("needs the primary where the position is unknown: a token before every timeline there is", () =>
    Effect.gen(function* () {
      const { state, tokens } = primary({ known: at(100n, 1), settled: { positions: [at(5n, 1)], isOpen: true } })
      const position = (yield* tokens.position)!
      assert.isTrue(isBefore(position, at(0n, 1)))
      assert.deepStrictEqual(yield* tokens.accept(yield* tokens.issue(position)), Option.some(position))
      delete state.known
      state.settled = { positions: [], isOpen: true }
      assert.isUndefined(yield* tokens.position)
    })
  )

  it.effect("is that also right after a connection to the primary broke, when its position is not known any more", () =>
    Effect.gen(function* () {
      const { tokens } = primary({ system: at(0n).system, settled: { positions: [], isOpen: true } })
      const position = (yield* tokens.position)!
      assert.isTrue(isBefore(position, at(0n, 1)))
    })
  )
})

describe("tokens without configured keys", () => {
  it.effect("a process signs with one of its own, and says so once", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      const logger = Logger.replace(
        Logger.defaultLogger,
        Logger.make(({ logLevel, message }) => lines.push(`${logLevel.label} ${String(message)}`))
      )
      const source = {
        known: () => at(100n),
        system: () => undefined,
        ask: Effect.succeed(undefined),
        look: Effect.void,
        settled: () => Effect.succeed({ positions: [], isOpen: false })
      }
      const routers = [1, 2].map(() => new Tokens({ keys: undefined, lifetime }, source))
      yield* Effect.forEach([...routers, ...routers], (tokens) =>
        Effect.gen(function* () {
          const token = yield* tokens.issue(at(50n))
          for (const other of routers) assert.deepStrictEqual(yield* other.accept(token), Option.some(at(50n)))
          assert.deepStrictEqual(Token.decode(keys, token, 0), Either.left("signature"))
        })
      ).pipe(Effect.provide(logger))
      assert.strictEqual(lines.length, 1)
      assert.match(lines[0]!, /^WARN .*DB_ROUTER_TOKEN_KEYS/)
    })
  )
})
