/**
 * From the text of a statement: may a standby run it, and why (not).
 *
 * The text is parsed by PostgreSQL's own grammar and answered `read` only when it is shown to be one: a plain SELECT, VALUES,
 * TABLE, SHOW, or EXPLAIN of one without ANALYZE; no data-modifying WITH, INTO or locking clause at any depth; every function
 * non-volatile, or volatile without an effect (`random()`, `gen_random_uuid()`, ...); nothing that answers for one server or
 * one session; and no view, operator, cast, domain or policy that is not as harmless.
 *
 * Names count at their worst: an unqualified name stands for every object of that name, whatever the `search_path`. What it
 * cannot see, and a standby refuses (SQLSTATE 25006, see `remember`): functions that are marked stable or immutable and write
 * all the same.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import type { Catalog } from "./internal/classifier/catalog.js"
import * as CatalogKnowledge from "./internal/classifier/catalogKnowledge.js"
import { catalogQuery, stampQuery } from "./internal/classifier/catalogQuery.js"
import * as Classify from "./internal/classifier/classify.js"
import type { Leaves } from "./internal/classifier/finding.js"
import * as Knowledge from "./internal/classifier/knowledge.js"
import { countLookup } from "./internal/classifier/lookups.js"
import { NewNames } from "./internal/classifier/newNames.js"
import * as Parser from "./internal/classifier/parser.js"
import * as bounded from "./internal/util/bounded.js"
import { elapsedOf } from "./internal/util/clock.js"
import * as limits from "./internal/util/limits.js"
import { Lock } from "./internal/util/lock.js"
import * as Log from "./internal/validation/log.js"

export type {
  /**
   * A snapshot of what a server's catalog says about the objects that are not PostgreSQL's own. Plain data.
   *
   * @since 0.1.0
   * @category catalog
   */
  Catalog,
  /**
   * The reason why a name is not fine in a read.
   *
   * @since 0.1.0
   * @category catalog
   */
  CatalogCause,
  /**
   * Functions that are labelled IMMUTABLE though their value hangs on a setting.
   *
   * @since 0.1.0
   * @category catalog
   */
  CatalogFolds,
  /**
   * The session state that the functions of a server leave behind on the connections that call them, and the names by which a
   * statement reaches them.
   *
   * @since 0.1.0
   * @category catalog
   */
  CatalogLeaves,
  /**
   * The session state that is left behind on a connection.
   *
   * @since 0.1.0
   * @category catalog
   */
  CatalogLeft,
  /**
   * The names of one sort of object, by schema: those fine in a read, and the others with the cause.
   *
   * @since 0.1.0
   * @category catalog
   */
  CatalogNames
} from "./internal/classifier/catalog.js"

export type {
  /**
   * The session state that a statement leaves behind for the statements after it on its connection.
   *
   * @since 0.1.0
   * @category models
   */
  Leaves
} from "./internal/classifier/finding.js"

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
 * The effect of a statement on a server, with the reason for the answer.
 *
 * @since 0.1.0
 * @category models
 */
export interface Classification {
  readonly kind: StatementKind
  /** Short and for people: `plain SELECT`, `locking clause FOR UPDATE`, `calls nextval`, ... */
  readonly reason: string
  /** It may change what a catalog snapshot holds (DDL; also `DO`, `CALL` and what does not parse): read the catalog again. */
  readonly changesSchema: boolean
  /**
   * The state that it leaves behind for the statements after it on its connection; absent for none. Of a `session` statement of a
   * classifier of your own that never says it, everything is expected.
   */
  readonly leaves?: Leaves
  /**
   * Whether a plan of it may hold the value that a setting has while it is planned: it reaches a function that is labelled
   * IMMUTABLE and reads one. Such a statement is parsed for each run, and never prepared under a name. Absent for `false`.
   */
  readonly foldsSettings?: boolean
}

/**
 * Decides from the text of a statement what it does to a server.
 *
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
   * A standby refused this text because it is a standby (SQLSTATE 25006 and its like), and the primary has run it: it is a
   * `write`, for the given reason, until the catalog changes, and for a minute at most. The 2,000 texts used last are
   * remembered.
   */
  readonly remember: (sql: string, reason: string) => void
  /**
   * Returns `true` if a text is a `write` only for want of knowledge: it does not parse, is too long, was refused by a standby,
   * or names something that the catalog does not know. A read-only session does not refuse such a text, it runs it in its READ
   * ONLY transaction, where the server guards. Absent: no text is.
   */
  readonly isGuess?: (sql: string) => boolean
  /**
   * Reads the catalog again, where there is one. Never fails: when the catalog cannot be read, or not within 10 seconds, the
   * old snapshot stays in use and a warning is logged.
   */
  readonly refresh: Effect.Effect<void>
}

/**
 * A `SqlClassifier` in the context of the router's layer takes the place of the default one.
 *
 * @since 0.1.0
 * @category tags
 */
export const SqlClassifier = Context.GenericTag<SqlClassifier>("effect-db-router/SqlClassifier")

/**
 * The cache of a classifier.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * The number of texts that keep their classification, least recently used first out. Texts are also bounded to 8 million
   * UTF-16 code units in all. `0` keeps none.
   *
   * @default 10_000
   */
  readonly cacheSize?: number
  /**
   * If `true`, look-ups are counted as hits and misses: `Telemetry.lookups`.
   *
   * @default true
   */
  readonly metrics?: boolean
}

const defaultCacheSize = 10_000

const coreOf = (
  knowledge: Knowledge.Knowledge,
  { cacheSize = defaultCacheSize, metrics = true }: Options,
  hooks: Classify.Hooks
) => Classify.make(knowledge, cacheSize, { ...hooks, onLookup: metrics ? countLookup : undefined })

const fromCore = ({ classify, isGuess, remember }: Classify.Core, refresh: Effect.Effect<void>): SqlClassifier => ({
  classify,
  isGuess,
  remember,
  refresh
})

const now = Effect.map(Effect.clock, (clock) => () => elapsedOf(clock))

/**
 * A classifier that asks no server. It knows PostgreSQL 18's own functions and relations; every other function is unknown to
 * it, and so a write, and every other relation counts as an ordinary table.
 *
 * @since 0.1.0
 * @category constructors
 */
export const makeWith = (options: Options): Effect.Effect<SqlClassifier> =>
  Effect.map(Effect.zipRight(Effect.promise(Parser.load), now), (now) =>
    fromCore(coreOf(Knowledge.builtin, options, { now }), Effect.void)
  )

/**
 * `makeWith` and the defaults.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { SqlClassifier } from "effect-db-router"
 *
 * const program = Effect.map(SqlClassifier.make, ({ classify }) => [
 *   classify("SELECT 1"), // { kind: "read", reason: "plain SELECT", ... }
 *   classify("SELECT nextval('id')") // { kind: "write", reason: "calls nextval", ... }
 * ])
 * ```
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: Effect.Effect<SqlClassifier> = makeWith({})

/**
 * The source of a classifier's catalog.
 *
 * @since 0.1.0
 * @category models
 */
export interface CatalogOptions<E> extends Options {
  /** Reads the catalog, on the primary: see `readCatalog`. */
  readonly load: Effect.Effect<Catalog, E>
  /**
   * Something small that changes when new names come into the catalog: see `readStamp`. A text with a name that the catalog
   * does not know has it asked for, once a second at most, and the catalog read only where it has changed. Without it the
   * catalog itself is read then.
   */
  readonly stamp?: Effect.Effect<string, E>
  /**
   * The interval at which the catalog is read again in the background, give or take a fifth. `Duration.infinity`: only by
   * `refresh`, and after a name that it does not know.
   *
   * @default "60 seconds"
   */
  readonly refreshInterval?: Duration.DurationInput
}

/**
 * A classifier that knows one server's functions, relations, types and operators. The first reading of the catalog decides
 * whether it is built; later ones replace the snapshot and empty the cache when something has changed, and leave both alone
 * when they fail. Calls of `refresh` at the same time share a reading that began after the last of them.
 *
 * A name that the catalog does not know has it read at once, in the background: a table that another process has made is known
 * within a second or two. Readings for that reason take a twentieth of the time at most.
 *
 * @since 0.1.0
 * @category constructors
 */
export const fromCatalog = <E>(options: CatalogOptions<E>): Effect.Effect<SqlClassifier, E, Scope.Scope> =>
  Effect.gen(function* () {
    yield* Effect.promise(Parser.load)
    const first = yield* options.load
    const newNames = new NewNames()
    const core = coreOf(CatalogKnowledge.fromCatalog(first), options, {
      now: yield* now,
      onNewName: () => newNames.notice()
    })
    const refresh = makeRefresh(options.load, first, (catalog) => core.use(CatalogKnowledge.fromCatalog(catalog)))
    const interval = Duration.toMillis(options.refreshInterval ?? "60 seconds")
    if (Number.isFinite(interval)) {
      const pause = Effect.flatMap(Random.nextRange(interval * 0.8, interval * 1.2), (millis) => Effect.sleep(millis))
      yield* Effect.forkScoped(Effect.interruptible(Effect.forever(Effect.zipRight(pause, refresh))))
    }
    yield* Effect.forkScoped(Effect.interruptible(newNames.follow(options.stamp, refresh)))
    return fromCore(core, refresh)
  })

const makeRefresh = <E>(
  load: Effect.Effect<Catalog, E>,
  first: Catalog,
  use: (catalog: Catalog) => void
): Effect.Effect<void> => {
  const lock = new Lock()
  let current = JSON.stringify(first)
  let asked = 0
  let answered = 0
  let failing = false

  const succeed = (catalog: Catalog) => {
    failing = false
    const text = JSON.stringify(catalog)
    if (text === current) return
    current = text
    use(catalog)
  }

  const fail = (cause: Cause.Cause<E | Cause.TimeoutException>) => {
    const log = failing ? Log.debug : Log.warning
    failing = true
    return log("The catalog could not be read: SQL is classified by the last snapshot of it", cause)
  }

  // A reading answers every request that was made before it began; an interrupted one answers none.
  const reading = Effect.suspend(() => {
    const begun = ++asked
    // A server that does not answer must not hold up those who wait for a refresh.
    return Effect.flatMap(bounded.within(load, limits.catalog), (found) => {
      if (found.state === "late") return fail(Cause.fail(new Cause.TimeoutException()))
      if (found.state === "failed") return fail(found.exit.cause)
      return Effect.catchAllCause(
        Effect.sync(() => succeed(found.exit.value)),
        fail
      )
    }).pipe(
      Effect.zipRight(
        Effect.sync(() => {
          answered = begun
        })
      )
    )
  })

  return Effect.suspend(() => {
    const ticket = ++asked
    return lock.run(Effect.suspend(() => (answered > ticket ? Effect.void : reading)))
  })
}

/**
 * The catalog of the server that `query` asks (PostgreSQL 14 or newer), in one round trip. Any role that may connect can
 * read it; about 30 ms and 10 kB on an empty database, and a name more for every relation, function and type.
 *
 * @since 0.1.0
 * @category catalog
 */
export const readCatalog = <E, R>(
  query: (sql: string) => Effect.Effect<ReadonlyArray<object>, E, R>
): Effect.Effect<Catalog, E, R> =>
  Effect.map(query(catalogQuery), (rows): Catalog => {
    // By position: the names of columns may be transformed.
    const [text] = Object.values(rows[0] ?? {})
    if (typeof text !== "string") throw new TypeError("readCatalog: the query must return its one row as an object")
    return JSON.parse(text)
  })

/**
 * Something that changes when a relation, function or type comes into the catalog of the server that `query` asks, or when one
 * is altered. Temporary ones do not count. One round trip; it reads no more than three columns of the objects that are not
 * PostgreSQL's own.
 *
 * @since 0.1.0
 * @category catalog
 */
export const readStamp = <E, R>(
  query: (sql: string) => Effect.Effect<ReadonlyArray<object>, E, R>
): Effect.Effect<string, E, R> =>
  Effect.map(query(stampQuery), (rows) => {
    const [text] = Object.values(rows[0] ?? {})
    return String(text)
  })
