import { inspect } from "node:util"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Either, Redacted } from "effect"
import { type Position, RouterError, Token } from "effect-db-router"
import * as fc from "fast-check"

const secret = (name: string) => Redacted.make(name.padEnd(Token.minKeyBytes, "."))

const keysOf = (...names: ReadonlyArray<string>) => Either.getOrThrow(Token.keys(names.map(secret)))

const position: fc.Arbitrary<Position.Position> = fc.record({
  system: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map(String),
  timeline: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  lsn: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })
})

const expiry = fc.integer({ min: 1, max: 2 ** 48 - 1 })

const here: Position.Position = { system: "7342981273498127349", timeline: 3, lsn: 0x16b374d848n }

describe("a token", () => {
  it("says what was put into it, until it expires", () => {
    const keys = keysOf("a")
    fc.assert(
      fc.property(position, expiry, (position, expiresAt) => {
        const text = Token.encode(keys, position, { expiresAt })
        assert.match(text, /^[A-Za-z0-9_-]{80}$/)
        assert.deepStrictEqual(Token.decode(keys, text, expiresAt - 1), Either.right({ position, expiresAt }))
        assert.deepStrictEqual(Token.decode(keys, text, expiresAt), Either.left("expired"))
        assert.deepStrictEqual(Token.decode(keys, text, Number.MAX_SAFE_INTEGER), Either.left("expired"))
      })
    )
  })

  it("has one spelling", () => {
    const keys = keysOf("a")
    fc.assert(
      fc.property(
        position,
        expiry,
        fc.constantFrom("=", "==", " ", "\n", "A", "-", "\0", "é"),
        (at, expiresAt, more) => {
          const text = Token.encode(keys, at, { expiresAt })
          for (const other of [text + more, more + text, text.slice(0, 40) + more + text.slice(40)]) {
            assert.isTrue(Either.isLeft(Token.decode(keys, other, 0)), other)
          }
          const standard = text.replaceAll("-", "+").replaceAll("_", "/")
          assert.strictEqual(Either.isRight(Token.decode(keys, standard, 0)), standard === text)
        }
      )
    )
  })

  it("keeps an expiry that six bytes do not hold as near as they can", () => {
    const keys = keysOf("a")
    const expiryOf = (expiresAt: number) =>
      Either.map(Token.decode(keys, Token.encode(keys, here, { expiresAt }), -1), (token) => token.expiresAt)
    assert.deepStrictEqual(expiryOf(1.9), Either.right(1))
    assert.deepStrictEqual(expiryOf(-5), Either.right(0))
    assert.deepStrictEqual(expiryOf(Number.POSITIVE_INFINITY), Either.right(2 ** 48 - 1))
  })

  it("is not made of what no server has", () => {
    const keys = keysOf("a")
    for (const wrong of [{ system: String(2n ** 63n) }, { timeline: -1 }, { timeline: 2 ** 32 }, { lsn: 2n ** 64n }]) {
      assert.throws(() => Token.encode(keys, { ...here, ...wrong }, { expiresAt: 1 }), RangeError)
    }
  })
})

describe("the keys of tokens", () => {
  it("rotate: the first signs, all are accepted, one that is dropped is not", () => {
    const signed = (...names: ReadonlyArray<string>) => Token.encode(keysOf(...names), here, { expiresAt: 2 })
    const accepts = (token: string, ...names: ReadonlyArray<string>) => Token.decode(keysOf(...names), token, 1)
    const accepted = Either.right({ position: here, expiresAt: 2 })
    assert.deepStrictEqual(accepts(signed("old"), "old", "new"), accepted)
    assert.deepStrictEqual(accepts(signed("old", "new"), "new", "old"), accepted)
    assert.deepStrictEqual(accepts(signed("new", "old"), "old", "new"), accepted)
    assert.deepStrictEqual(accepts(signed("new", "old"), "new"), accepted)
    assert.deepStrictEqual(accepts(signed("old"), "new"), Either.left("signature"))
  })

  it("are told apart even where their hints are the same", () => {
    const names = Array.from({ length: 600 }, (_, i) => `key ${i}`)
    const all = keysOf(...names)
    assert.isBelow(new Set(all.accepted.map(({ id }) => id)).size, names.length)
    for (const name of names) {
      const token = Token.encode(keysOf(name), here, { expiresAt: 2 })
      assert.isTrue(Either.isRight(Token.decode(all, token, 1)))
    }
  })

  it("that cannot be used are an error that shows nothing of them", () => {
    const marker = "Tr0ub4dor"
    const cases: ReadonlyArray<readonly [unknown, string, string]> = [
      [[], "tokens.keys", "at least one"],
      [[secret("a"), Redacted.make(marker)], "tokens.keys[1]", "9 bytes"],
      [[Redacted.make("é".repeat(15))], "tokens.keys[0]", "30 bytes"],
      [[marker.repeat(10)], "tokens.keys[0]", "Redacted.make"],
      [[Redacted.make(17)], "tokens.keys[0]", "Redacted.make"]
    ]
    for (const [given, field, says] of cases) {
      const made = Token.keys(given as ReadonlyArray<Redacted.Redacted>, "tokens.keys")
      assert(Either.isLeft(made))
      assert.instanceOf(made.left, RouterError.RouterConfigError)
      assert.strictEqual(made.left.field, field)
      assert.include(made.left.message, says)
      assert.notInclude(made.left.message, marker)
    }
    assert.notInclude(inspect(keysOf(marker), { depth: 9, showHidden: true }), marker)
  })

  it.effect("of a process are its own", () =>
    Effect.gen(function* () {
      const [one, other] = [yield* Token.randomKeys, yield* Token.randomKeys]
      const token = Token.encode(one, here, { expiresAt: 2 })
      assert.isTrue(Either.isRight(Token.decode(one, token, 1)))
      assert.deepStrictEqual(Token.decode(other, token, 1), Either.left("signature"))
    })
  )
})

describe("the position of a token", () => {
  const known = here
  it("is possible up to that of the primary, and on timelines before its own", () => {
    const cases: ReadonlyArray<readonly [Partial<Position.Position>, boolean]> = [
      [{}, true],
      [{ lsn: known.lsn - 1n }, true],
      [{ lsn: known.lsn + 1n }, false],
      [{ timeline: 2, lsn: 2n ** 64n - 1n }, true],
      [{ timeline: 4, lsn: 0n }, false],
      [{ system: "1" }, false],
      [{ system: "1", timeline: 1 }, false]
    ]
    for (const [other, possible] of cases) {
      assert.strictEqual(Token.isPossible({ ...known, ...other }, known), possible, JSON.stringify(Object.keys(other)))
    }
  })
})

/** A generator of numbers that is the same in every run. */
const seeded = (seed: number) => {
  let state = seed
  return (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}

describe("100,000 tokens that are none", () => {
  const now = 1_700_000_000_000
  const accepted = keysOf("current", "older", "oldest")
  const signers = ["current", "older", "oldest"].map((name) => keysOf(name))
  const strangers = Array.from({ length: 400 }, (_, i) => keysOf(`stranger ${i}`))
  const next = seeded(5)
  const bytes = (count: number) => Buffer.from(Array.from({ length: count }, () => next(256)))
  const pick = <A>(from: ReadonlyArray<A>): A => from[next(from.length)]!
  const somewhere = (): Position.Position => ({
    system: String(bytes(8).readBigInt64BE()),
    timeline: next(2 ** 32),
    lsn: bytes(8).readBigUInt64BE()
  })
  const valid = (keys = pick(signers), expiresAt = now + 1 + next(60_000)) =>
    Token.encode(keys, somewhere(), { expiresAt })
  const changed = (text: string, change: (bytes: Buffer) => void) => {
    const bytes = Buffer.from(text, "base64url")
    change(bytes)
    return bytes.toString("base64url")
  }
  const flipped = (text: string) =>
    changed(text, (bytes) => {
      for (let flips = 1 + next(3), at = next(480); flips > 0; flips--, at = (at + 1 + next(150)) % 480) {
        bytes[at >> 3]! ^= 1 << (at & 7)
      }
    })
  const anything = (length: number) => String.fromCharCode(...Array.from({ length }, () => next(0x10000)))

  const kinds: Readonly<Record<string, () => unknown>> = {
    "random bytes": () => bytes(60).toString("base64url"),
    "random bytes behind a right version": () => changed(bytes(60).toString("base64url"), (bytes) => (bytes[0] = 1)),
    "random bytes behind a right head": () => changed(valid(), (to) => bytes(32).copy(to, 28)),
    "random bytes of any length": () => bytes(next(300)).toString("base64url"),
    "any text": () => anything(next(200)),
    "any text of the right length": () => anything(80),
    "any text of 10 kB": () => anything(10_000),
    "10 kB that begin as a token": () => valid() + "A".repeat(10_000),
    truncated: () => valid().slice(0, next(80)),
    "truncated at the start": () => valid().slice(1 + next(79)),
    extended: () => valid() + bytes(1 + next(8)).toString("base64url"),
    "bits flipped": () => flipped(valid()),
    "one character changed": () => {
      const text = valid()
      const at = next(80)
      const other = pick([..."ABCabc019-_ =+/\n\0é"].filter((char) => char !== text[at]))
      return text.slice(0, at) + other + text.slice(at + 1)
    },
    "two tokens mixed": () => {
      const at = 4 + next(72)
      return valid().slice(0, at) + valid().slice(at)
    },
    "the signature of another": () => changed(valid(), (to) => Buffer.from(valid(), "base64url").copy(to, 28, 28)),
    "another key": () => valid(pick(strangers)),
    "another version": () => changed(valid(), (bytes) => (bytes[0] = pick([0, 2, 3, 127, 255]))),
    expired: () => valid(pick(signers), now - next(1_000_000)),
    "not a text": () => pick([undefined, null, 5, {}, [], Buffer.alloc(60), Symbol("x")])
  }

  it("none is accepted, none throws, and all that are tokens are accepted", () => {
    const makers = Object.entries(kinds)
    const seen = new Map<string, Map<string, number>>()
    const count = (kind: string, result: string) => {
      const results = seen.get(kind) ?? new Map<string, number>()
      seen.set(kind, results.set(result, (results.get(result) ?? 0) + 1))
    }
    for (let i = 0; i < 100_000; i++) {
      const [kind, make] = makers[i % makers.length]!
      const result = Token.decode(accepted, make() as string, now)
      count(kind, Either.isRight(result) ? "accepted" : result.left)
      if (i % 10 > 0) continue
      const good = Token.decode(accepted, valid(), now)
      count("valid", Either.isRight(good) ? "accepted" : good.left)
    }
    assert.deepStrictEqual(seen.get("valid"), new Map([["accepted", 10_000]]))
    seen.delete("valid")
    assert.deepStrictEqual(
      Array.from(seen).filter(([, results]) => results.has("accepted")),
      []
    )
    assert.strictEqual(seen.size, makers.length)
    // Each is refused for its own reason, not for one that comes before.
    const only = (kind: string) => Array.from(seen.get(kind)!.keys())
    assert.deepStrictEqual(only("any text of 10 kB"), ["tooLong"])
    assert.deepStrictEqual(only("another key"), ["signature"])
    assert.deepStrictEqual(only("the signature of another"), ["signature"])
    assert.deepStrictEqual(only("another version"), ["version"])
    assert.deepStrictEqual(only("expired"), ["expired"])
    assert.deepStrictEqual(only("not a text"), ["malformed"])
  })
})
