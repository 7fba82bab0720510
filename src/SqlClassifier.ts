/**
 * From the text of a statement: may a standby run it, and why (not).
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Classify from "./internal/classifier/classify.js"
import * as Knowledge from "./internal/classifier/knowledge.js"
import * as Parser from "./internal/classifier/parser.js"

/**
 * - `read`: any server that has the data may run it.
 * - `write`: changes data or schema, locks rows, or was not shown to do neither.
 * - `session`: changes no data, but holds for one session or one server only (`SET`, cursors, advisory locks, `pg_stat_*`).
 *
 * @since 0.1.0
 * @category models
 */
export type StatementKind = "read" | "write" | "session"

/**
 * @since 0.1.0
 * @category models
 */
export interface Classification {
  readonly kind: StatementKind
  /** Short and for people: `plain SELECT`, `locking clause FOR UPDATE`, `calls nextval`, ... */
  readonly reason: string
  /** It may change what a catalog snapshot holds (DDL; also `DO`, `CALL` and what does not parse): read the catalog again. */
  readonly changesSchema: boolean
}

/**
 * @since 0.1.0
 * @category models
 */
export interface SqlClassifier {
  /**
   * Synchronous and total: it never throws. `read` only for what is shown to be one; what does not parse, or names something
   * unknown, is a `write`. Several statements in one text are a `write` if any is, else `session` if any is.
   */
  readonly classify: (sql: string) => Classification
  /**
   * A standby refused this text (SQLSTATE 25006 and its like): from now on it is a `write`, for the given reason. The 2,000 texts
   * used last are remembered, through changes of the catalog.
   */
  readonly remember: (sql: string, reason: string) => void
  /**
   * Reads the catalog again, where there is one. Never fails: when the catalog cannot be read, the old snapshot stays in use.
   */
  readonly refresh: Effect.Effect<void>
}

/**
 * @since 0.1.0
 * @category tags
 */
export const SqlClassifier = Context.GenericTag<SqlClassifier>("effect-db-router/SqlClassifier")

/**
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * How many texts keep their classification, least recently used first out. Texts are also bounded to 8 million UTF-16 code
   * units in all. `0` keeps none.
   *
   * @default 10_000
   */
  readonly cacheSize?: number
}

const defaultCacheSize = 10_000

const fromCore = (core: Classify.Core, refresh: Effect.Effect<void>): SqlClassifier => ({
  classify: core.classify,
  remember: core.remember,
  refresh
})

/**
 * A classifier that asks no server. It knows PostgreSQL 18's own functions and relations; every other function is unknown to
 * it, and so a write, and every other relation counts as an ordinary table.
 *
 * @since 0.1.0
 * @category constructors
 */
export const makeWith = (options: Options): Effect.Effect<SqlClassifier> =>
  Effect.map(Effect.promise(Parser.load), () =>
    fromCore(Classify.make(Knowledge.builtin, options.cacheSize ?? defaultCacheSize), Effect.void)
  )

/**
 * `makeWith` and the defaults.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: Effect.Effect<SqlClassifier> = makeWith({})
