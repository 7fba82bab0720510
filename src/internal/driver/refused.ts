import * as Effect from "effect/Effect"
import * as RouterError from "../../RouterError.js"

/** What becomes of a statement whose session or transaction has ended. */
export const refused = Effect.suspend(() => Effect.fail(RouterError.toSqlError(RouterError.sessionClosed())))
