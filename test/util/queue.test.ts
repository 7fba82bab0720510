import { assert, describe, it } from "@effect/vitest"
import { Effect, Random } from "effect"
import { type Place, Queue } from "../../src/internal/util/linkedQueue.js"

describe("a queue", () => {
  it("is first come, first served, but for those who come before all others", () => {
    const queue = new Queue<number>()
    assert.strictEqual(queue.first, undefined)
    queue.add(1)
    queue.add(2)
    queue.addFirst(0)
    assert.strictEqual(queue.first, 0)
    assert.deepStrictEqual(queue.takeAll(), [0, 1, 2])
    assert.strictEqual(queue.size, 0)
    assert.strictEqual(queue.first, undefined)
    queue.addFirst(5)
    queue.add(6)
    assert.deepStrictEqual(queue.takeAll(), [5, 6])
  })

  it("can be left once, from anywhere", () => {
    const queue = new Queue<number>()
    const [one, two, three] = [queue.add(1), queue.add(2), queue.add(3)]
    assert.isTrue(two.leave())
    assert.isFalse(two.leave())
    assert.strictEqual(queue.size, 2)
    assert.isTrue(three.leave())
    queue.add(4)
    assert.isTrue(one.leave())
    assert.deepStrictEqual(queue.takeAll(), [4])
    assert.isFalse(one.leave())
  })

  it("keeps no removed entry alive through another one", () => {
    const queue = new Queue<number>()
    const places = Array.from({ length: 100 }, (_, i) => queue.add(i))
    for (const place of [...places.slice(50), ...places.slice(0, 50)]) {
      place.leave()
      assert.deepStrictEqual([place.previous, place.next], [undefined, undefined])
    }
    const rest = Array.from({ length: 10 }, (_, i) => queue.add(i))
    queue.takeAll()
    for (const place of rest) assert.deepStrictEqual([place.previous, place.next], [undefined, undefined])
  })

  it.effect("is what a list is, whatever is added and removed", () =>
    Effect.gen(function* () {
      const queue = new Queue<number>()
      let list: Array<{ readonly value: number; readonly place: Place<number> }> = []
      for (let value = 0; value < 5_000; value++) {
        const choice = yield* Random.nextIntBetween(0, 4)
        if (choice === 0) list.push({ value, place: queue.add(value) })
        else if (choice === 1) list.unshift({ value, place: queue.addFirst(value) })
        else if (list.length > 0) {
          const index = yield* Random.nextIntBetween(0, list.length)
          assert.isTrue(list[index]!.place.leave())
          list = list.filter((_, i) => i !== index)
        }
        assert.deepStrictEqual([queue.size, queue.first], [list.length, list[0]?.value])
      }
      assert.deepStrictEqual(
        queue.takeAll(),
        list.map(({ value }) => value)
      )
    })
  )
})
