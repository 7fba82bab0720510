import * as Effect from "effect/Effect"
import * as Parser from "../classifier/parser.js"
import { DbRouter } from "../client/service.js"
import type { Explained } from "./report.js"

/** Where each text would go as one statement. */
export const explain = (statements: ReadonlyArray<string>): Effect.Effect<ReadonlyArray<Explained>, never, DbRouter> =>
  Effect.flatMap(DbRouter, (router) =>
    Effect.forEach(statements, (sql) =>
      Effect.match(router.explain(sql), {
        onFailure: (error): Explained => ({ sql, route: undefined, error: error.message }),
        onSuccess: (route): Explained => ({ sql, route, error: undefined })
      })
    )
  )

/** Where a statement stands in its text, in bytes; what is left out is the beginning, or the end. */
interface Place {
  readonly stmt_location?: number
  readonly stmt_len?: number
}

/** The statements of a script, by PostgreSQL's grammar. What it cannot parse, or is too long to, is one. */
export const statementsOf = (script: string): Effect.Effect<ReadonlyArray<string>> =>
  Effect.map(Effect.promise(Parser.load), () => {
    const whole = script.trim()
    if (whole === "") return []
    const parsed = whole.length > Parser.maxLength ? "unavailable" : Parser.parse(whole)
    if (typeof parsed === "string") return [whole]
    const bytes = Buffer.from(whole)
    const places = (parsed.stmts ?? []) as ReadonlyArray<NonNullable<Parser.Parsed["stmts"]>[number] & Place>
    return places.map(({ stmt_len: length, stmt_location: start = 0 }) =>
      bytes
        .subarray(start, length === undefined ? undefined : start + length)
        .toString()
        .trim()
    )
  })
