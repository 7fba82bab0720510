import { assert, describe, it } from "@effect/vitest"
import { Option } from "effect"
import { Position } from "effect-db-router"
import * as fc from "fast-check"

const lsn = fc.bigUint(2n ** 64n - 1n)
const near = fc
  .tuple(fc.bigUint(3n), fc.constantFrom(0n, 8n, 24n, 32n, 40n, 48n, 8_184n))
  .map(([p, o]) => p * 8_192n + o)
const position = fc.record({
  system: fc.constantFrom("7001", "7002"),
  timeline: fc.integer({ min: 1, max: 2 }),
  lsn: fc.oneof(near, lsn)
})

const hold = (...properties: ReadonlyArray<fc.IRawProperty<unknown>>) => {
  for (const property of properties) fc.assert(property, { numRuns: 2_000 })
}

describe("a position that covers all of several", () => {
  const at = (lsn: bigint, system = "7001") => ({ system, timeline: 1, lsn })

  it("is at or after each of them", () => {
    assert.isTrue(Position.coversAll(at(100n), []))
    assert.isTrue(Position.coversAll(at(100n), [at(99n), at(100n)]))
    assert.isFalse(Position.coversAll(at(100n), [at(99n), at(101n)]))
    assert.isFalse(Position.coversAll(at(100n), [at(101n), at(99n)]))
    assert.isFalse(Position.coversAll(at(100n), [at(99n), at(99n, "7002")]))
  })
})

describe("the text of a position", () => {
  it("is PostgreSQL's", () => {
    assert.strictEqual(Position.printLsn(0x16b374d848n), "16/B374D848")
    assert.strictEqual(Option.getOrUndefined(Position.parseLsn("16/B374D848")), 0x16b374d848n)
    assert.strictEqual(Option.getOrUndefined(Position.parseLsn("0/0")), 0n)
    assert.strictEqual(Position.printLsn(0xffffffffffffffffn), "FFFFFFFF/FFFFFFFF")
  })

  it("reads back what it prints, in either case", () => {
    hold(
      fc.property(lsn, (lsn) => {
        const text = Position.printLsn(lsn)
        assert.strictEqual(Option.getOrUndefined(Position.parseLsn(text)), lsn)
        assert.strictEqual(Option.getOrUndefined(Position.parseLsn(text.toLowerCase())), lsn)
      })
    )
  })

  it("is refused when it is anything else", () => {
    for (const text of [
      "",
      "/",
      "0",
      "0/",
      "/0",
      "0/0/0",
      " 0/0",
      "0/0\n",
      "0/123456789",
      "-1/0",
      "0x1/0",
      "G/0",
      "1.0/0"
    ]) {
      assert.isUndefined(Option.getOrUndefined(Position.parseLsn(text)), JSON.stringify(text))
    }
    hold(
      fc.property(fc.string(), (text) => {
        const parsed = Position.parseLsn(text)
        if (Option.isSome(parsed)) assert.match(text, /^[\da-f]{1,8}\/[\da-f]{1,8}$/i)
      })
    )
  })
})

describe("where the data before an insert position ends", () => {
  it("is before the header of a page or a segment that it has just begun", () => {
    assert.strictEqual(Position.contentEnd(0x2000028n), 0x2000000n)
    assert.strictEqual(Position.contentEnd(0x2002018n), 0x2002000n)
    assert.strictEqual(Position.contentEnd(0x2000018n), 0x2000000n)
    // The first page of a segment of 1 MB.
    assert.strictEqual(Position.contentEnd(0x2100028n), 0x2100000n)
    for (const lsn of [0n, 0x2000000n, 0x2000030n, 0x2002020n, 0x2003ff8n])
      assert.strictEqual(Position.contentEnd(lsn), lsn)
  })

  it("is on the same page, and no header of its own", () => {
    hold(
      fc.property(fc.oneof(near, lsn), (lsn) => {
        const end = Position.contentEnd(lsn)
        assert.isTrue(end <= lsn && lsn - end <= 40n && end / 8_192n === lsn / 8_192n)
        assert.strictEqual(Position.contentEnd(end), end)
      })
    )
  })
})

describe("whether a server has a position", () => {
  const at = (lsn: bigint, timeline = 1, system = "7001"): Position.Position => ({ system, timeline, lsn })

  it("depends on what it has replayed", () => {
    assert.isTrue(Position.covers(at(0x2000060n), at(0x2000060n)))
    assert.isTrue(Position.covers(at(0x2000061n), at(0x2000060n)))
    assert.isFalse(Position.covers(at(0x2000058n), at(0x2000060n)))
    assert.isTrue(Position.covers(at(0x2000000n), at(0x2000028n)))
    assert.isFalse(Position.covers(at(0x1fffff8n), at(0x2000028n)))
  })

  it("is never so across systems and timelines", () => {
    assert.isFalse(Position.covers(at(0x9000000n, 1), at(0x2000060n, 2)))
    assert.isFalse(Position.covers(at(0x9000000n, 2), at(0x2000060n, 1)))
    assert.isFalse(Position.covers(at(0x9000000n, 1, "7002"), at(0x2000060n)))
    hold(
      fc.property(position, position, (replayed, wanted) => {
        if (!Position.isComparable(replayed, wanted)) assert.isFalse(Position.covers(replayed, wanted))
      })
    )
  })

  it("is an order: of itself, of all before what it has, and of nothing else", () => {
    hold(
      fc.property(position, (a) => assert.isTrue(Position.covers(a, a))),
      fc.property(position, position, position, (a, b, c) => {
        // What has been replayed is never inside a header.
        const from = { ...b, lsn: Position.contentEnd(b.lsn) }
        if (Position.covers(a, from) && Position.covers(from, c)) assert.isTrue(Position.covers(a, c))
      })
    )
  })
})

describe("positions that are merged", () => {
  const positions = fc.array(position, { maxLength: 6 }).map((all) => all.reduce(Position.add, []))
  const sorted = (all: ReadonlyArray<Position.Position>) =>
    all.map(({ lsn, system, timeline }) => `${system}/${timeline}/${lsn}`).sort()

  it("hold one for each system and timeline, the furthest", () => {
    hold(
      fc.property(fc.array(position, { maxLength: 8 }), (all) => {
        const merged = all.reduce(Position.add, [])
        for (const one of all) {
          const same = merged.filter((other) => Position.isComparable(one, other))
          assert.lengthOf(same, 1)
          assert.isTrue(same[0]!.lsn >= one.lsn)
          assert.isTrue(all.some((other) => Position.isComparable(one, other) && other.lsn === same[0]!.lsn))
        }
      })
    )
  })

  it("do not depend on order or repetition, and are the same array when nothing is new", () => {
    hold(
      fc.property(positions, positions, positions, (a, b, c) => {
        assert.deepStrictEqual(sorted(Position.merge(a, b)), sorted(Position.merge(b, a)))
        assert.deepStrictEqual(
          sorted(Position.merge(Position.merge(a, b), c)),
          sorted(Position.merge(a, Position.merge(b, c)))
        )
        assert.strictEqual(Position.merge(a, a), a)
        const both = Position.merge(a, b)
        assert.strictEqual(Position.merge(both, b), both)
      })
    )
  })

  it("need all of them", () => {
    hold(
      fc.property(position, positions, positions, (replayed, a, b) => {
        assert.strictEqual(
          Position.coversAll(replayed, Position.merge(a, b)),
          Position.coversAll(replayed, a) && Position.coversAll(replayed, b)
        )
      })
    )
  })
})
