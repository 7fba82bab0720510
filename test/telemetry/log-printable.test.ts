import { SqlError } from "@effect/sql/SqlError"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Logger, LogLevel } from "effect"
import * as Log from "../../src/internal/validation/log.js"
import { printable, withoutPasswords } from "../../src/internal/validation/printValue.js"

const evil = '\u001b[2J\u001b[31mPWNED\nlevel=FATAL message="forged line"\u202e\u0085\u2028'

const linesOf = (effect: Effect.Effect<void>) => {
  const lines: Array<string> = []
  const logger = Logger.map(Logger.stringLogger, (line) => lines.push(line))
  return Effect.as(Effect.provide(effect, Logger.replace(Logger.defaultLogger, logger)), lines)
}

describe("a logged text", () => {
  it("escapes control characters, and leaves all others", () => {
    assert.strictEqual(
      printable("a\tb\r\n\u001b[0m\u009b\u202e\u2028é 漢 🙂"),
      "a\\tb\\r\\n\\x1b[0m\\x9b\\u202e\\u2028é 漢 🙂"
    )
  })

  it.effect("is one line for a message, and its error's messages hold no control character either", () =>
    Effect.gen(function* () {
      const inner = Object.assign(new Error(evil), { code: "28000" })
      const cause = Cause.parallel(
        Cause.fail(new SqlError({ message: evil, cause: inner })),
        Cause.sequential(Cause.die(inner), Cause.die(evil))
      )
      const lines = yield* linesOf(Effect.zipRight(Log.warning(evil, cause), Log.error(evil, inner)))
      assert.strictEqual(lines.length, 2)
      for (const line of lines) {
        assert.strictEqual(printable(line.replaceAll("\n", "")), line.replaceAll("\n", ""))
        assert.notMatch(line, /^level=FATAL/m)
        assert.include(line, "PWNED")
      }
    })
  )

  it.effect("is the very error where there is nothing to escape", () =>
    Effect.gen(function* () {
      const seen: Array<unknown> = []
      const logger = Logger.make(({ message }) => void seen.push(message))
      const plain = new SqlError({ message: "plain", cause: new Error("inner") })
      const odd = new SqlError({ message: evil, cause: new Error("inner") })
      yield* Effect.provide(
        Effect.zipRight(Log.info("one", plain), Log.debug("two", odd)),
        Logger.replace(Logger.defaultLogger, logger)
      ).pipe(Logger.withMinimumLogLevel(LogLevel.All))
      assert.strictEqual((seen[0] as ReadonlyArray<unknown>)[1], plain)
      const shown = (seen[1] as ReadonlyArray<unknown>)[1]
      assert.instanceOf(shown, SqlError)
      assert.strictEqual((shown as SqlError).message, printable(evil))
      assert.strictEqual(odd.message, evil, "the error itself stays as it was")
    })
  )

  it.effect("holds no password of a URL", () =>
    Effect.gen(function* () {
      const inner = new Error("could not connect with postgres://u:hunter2@h/db")
      const cause = Cause.fail(new SqlError({ message: inner.message, cause: inner }))
      const lines = yield* linesOf(Log.warning(inner.message, cause))
      assert.include(lines.join(), "postgres://u:<redacted>@h/db")
      assert.notInclude(lines.join(), "hunter2")
    })
  )

  it("shows no password of a URL", () => {
    assert.strictEqual(
      withoutPasswords("no postgres://u:hunter2@h/db, and http://a:p@b@c/?x=1 or redis://:pw@h but http://h:80/@x"),
      "no postgres://u:<redacted>@h/db, and http://a:<redacted>@c/?x=1 or redis://:<redacted>@h but http://h:80/@x"
    )
  })
})
