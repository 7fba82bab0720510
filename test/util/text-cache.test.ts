import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { TextCache } from "../../src/internal/util/textCache.js"
import { TextMap } from "../../src/internal/util/textMap.js"

/** Texts that differ in few places, and texts of all sorts. */
const text = FastCheck.oneof(
  FastCheck.string({ unit: FastCheck.constantFrom("a", "b"), maxLength: 6 }),
  FastCheck.tuple(FastCheck.nat(300), FastCheck.nat(300)).map(
    ([one, other]) => `SELECT * FROM item WHERE price < ${one} AND id = $1 LIMIT ${other}`
  ),
  FastCheck.string({ unit: "binary" }),
  FastCheck.string({
    unit: FastCheck.constantFrom("\u{1f600}", "\u{1f601}", "\ud83d", "\0", "\x80", "x"),
    maxLength: 4
  })
)

/** The same text as a new string, in one piece or in two. */
const anew = (text: string, cut: number): string => {
  const copy = Buffer.from(text, "utf16le").toString("utf16le")
  return copy.slice(0, cut) + copy.slice(cut)
}

/** Stands for a text, and tells which of its characters were looked at. */
const spied = (text: string) => {
  const looked: Array<number> = []
  const charCodeAt = (position: number) => {
    looked.push(position)
    return text.charCodeAt(position)
  }
  return { looked, spy: { length: text.length, charCodeAt } as unknown as string }
}

/** The texts that are in a map, by looking into it. */
const textsIn = (inside: unknown): ReadonlyArray<string> =>
  inside instanceof Map
    ? [...inside.values()].flatMap(textsIn)
    : Object.entries(inside as object).flatMap(([key, value]) =>
        key === "text" ? [value] : value instanceof Map ? textsIn(value) : []
      )

describe("a map by text", () => {
  it("has what a Map has", () => {
    FastCheck.assert(
      FastCheck.property(FastCheck.array(FastCheck.tuple(text, FastCheck.nat(40)), { maxLength: 200 }), (uses) => {
        const map = new Map<string, number>()
        const texts = new TextMap<number>()
        for (const [i, [text, cut]] of uses.entries()) {
          assert.strictEqual(texts.get(anew(text, cut)), map.get(text))
          if (cut % 3 === 0) continue
          texts.set(anew(text, cut), i)
          map.set(text, i)
          assert.strictEqual(texts.size, map.size)
        }
        for (const [text, i] of map) assert.strictEqual(texts.get(anew(text, 3)), i)
      })
    )
  })

  it("looks at no character of a text twice, whatever texts there are", () => {
    const length = 200
    const texts = new TextMap<number>()
    // Each differs from all others where none of them does.
    for (let i = 0; i < length; i++) texts.set(`${"a".repeat(i)}b${"a".repeat(length - i - 1)}`, i)
    const { looked, spy } = spied("a".repeat(length))
    assert.isUndefined(texts.get(spy))
    assert.isAbove(looked.length, 0)
    assert.strictEqual(new Set(looked).size, looked.length)
  })

  it("looks at few characters of texts that differ in their values", () => {
    const texts = new TextMap<number>()
    const sql = (i: number) => `SELECT id, name, price FROM item WHERE price < ${i} AND id = $1 ORDER BY name LIMIT 20`
    for (let i = 100; i < 1_000; i++) texts.set(sql(i), i)
    const { looked, spy } = spied(sql(555))
    texts.get(spy)
    assert.lengthOf(looked, 3)
  })
})

describe("a cache by text", () => {
  it("never holds more entries, or more text, than it may", () => {
    const cache = new TextCache<number>(100, 10_000)
    for (let i = 0; i < 5_000; i++) {
      cache.set(`${i}`.padEnd(i % 400), i)
      const { entries, units } = cache.held
      assert.isAtMost(entries, 100)
      assert.isAtMost(units, 10_000)
      if (i % 100 > 0) continue
      const { old, young } = cache as unknown as Record<"old" | "young", unknown>
      const texts = [...textsIn(old), ...textsIn(young)]
      assert.lengthOf(texts, entries)
      assert.strictEqual(texts.join("").length, units)
    }
  })

  it("keeps what was used last, for at least half of its size", () => {
    const cache = new TextCache<number>(100, 1_000_000)
    for (let i = 0; i < 1_000; i++) {
      cache.set(`${i}`, i)
      // Used all the time, so never dropped.
      assert.strictEqual(cache.get("0"), 0)
      for (let back = 0; back < 49 && back <= i; back++) assert.strictEqual(cache.get(`${i - back}`), i - back)
    }
    assert.isUndefined(cache.get("1"))
  })

  it("counts a text once, however often it is set", () => {
    const cache = new TextCache<number>(10, 1_000)
    for (let i = 0; i < 100; i++) cache.set("the same", i)
    assert.deepStrictEqual(cache.held, { entries: 1, units: 8 })
    assert.strictEqual(cache.get("the same"), 99)
  })

  it("does not take a text that would push out all others", () => {
    const cache = new TextCache<number>(10, 1_000)
    cache.set("small", 1)
    cache.set("x".repeat(501), 2)
    assert.strictEqual(cache.get("small"), 1)
    assert.isUndefined(cache.get("x".repeat(501)))
  })

  it("has nothing once it was emptied, and takes new texts", () => {
    const cache = new TextCache<number>(10, 1_000)
    for (let i = 0; i < 8; i++) cache.set(`${i}`, i)
    cache.clear()
    assert.deepStrictEqual(cache.held, { entries: 0, units: 0 })
    for (let i = 0; i < 8; i++) assert.isUndefined(cache.get(`${i}`))
    cache.set("0", 1)
    assert.strictEqual(cache.get("0"), 1)
  })

  it("can be turned off", () => {
    const cache = new TextCache<number>(0, 1_000)
    cache.set("a", 1)
    assert.isUndefined(cache.get("a"))
    assert.deepStrictEqual(cache.held, { entries: 0, units: 0 })
  })
})
