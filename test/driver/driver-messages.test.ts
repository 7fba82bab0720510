import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { serialize } from "pg-protocol"
import * as messages from "../../src/internal/driver/messages.js"
import * as position from "../../src/internal/driver/position.js"

const value = FastCheck.oneof(
  FastCheck.constantFrom(null, undefined),
  FastCheck.string({ unit: "binary" }),
  FastCheck.string({ unit: "grapheme" }),
  FastCheck.uint8Array().map((bytes) => Buffer.from(bytes))
)

const executeAndSync = Buffer.concat([serialize.execute(), serialize.sync()])

describe("messages of the protocol", () => {
  it("that run a prepared statement are the driver's own, byte for byte", () => {
    FastCheck.assert(
      FastCheck.property(
        FastCheck.stringMatching(/^[a-z_0-9]{1,63}$/),
        FastCheck.array(value, { maxLength: 40 }),
        FastCheck.boolean(),
        (statement, values, binary) => {
          const bind = serialize.bind({ statement, values: values as Array<string>, binary })
          assert.deepStrictEqual(messages.runWith(statement, values, binary), Buffer.concat([bind, executeAndSync]))
        }
      ),
      { numRuns: 2_000 }
    )
  })

  it("that prepare, run without values, forget and end are the driver's own", () => {
    const text = "BEGIN ISOLATION LEVEL SERIALIZABLE"
    assert.deepStrictEqual(messages.parse("name", text), serialize.parse({ name: "name", text }))
    assert.deepStrictEqual(messages.parse("", position.text), serialize.parse({ text: position.text }))
    assert.deepStrictEqual(messages.closeStatement("name"), serialize.close({ type: "S", name: "name" }))
    assert.deepStrictEqual(messages.executeAndSync, executeAndSync)
    assert.deepStrictEqual(messages.sync, serialize.sync())
    const [bind, execute] = [messages.run("name").subarray(0, -10), messages.run("name").subarray(-10)]
    assert.deepStrictEqual(execute, serialize.execute())
    // The driver says of what format all results are; none says the same.
    assert.deepStrictEqual(bind.subarray(5, -2), serialize.bind({ statement: "name" }).subarray(5, -4))
  })
})
