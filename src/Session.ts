/**
 * The unit of work: statements that are committed or rolled back together.
 *
 * Nothing is opened until a statement needs it. The first statement for the default group (or a bind group) begins a
 * transaction there, on one connection that all fibers of the session share; reads that go to replicas stay outside of it.
 * At the end everything commits, or everything rolls back, and every connection goes back.
 *
 * @since 0.1.0
 */
import { SqlError } from "@effect/sql/SqlError"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as FiberRef from "effect/FiberRef"
import type * as FiberRefs from "effect/FiberRefs"
import { dual } from "effect/Function"
import * as Scope from "effect/Scope"
import * as place from "./internal/client/currentContext.js"
import * as unit from "./internal/client/openSession.js"
import { DbRouter } from "./internal/client/service.js"
import type { Runner } from "./internal/client/transactionRunner.js"
import * as rules from "./internal/context/rules.js"
import * as sessionOptions from "./internal/session/options.js"
import type { Hooks } from "./internal/transaction/hooks.js"
import type { SessionWork, Work } from "./internal/transaction/work.js"
import { nowOf } from "./internal/util/clock.js"
import { restored } from "./internal/util/refs.js"
import * as Log from "./internal/validation/log.js"
import * as RouterError from "./RouterError.js"
import * as RoutingContext from "./RoutingContext.js"

/**
 * The options of a session. Wrong ones fail it with a `SqlError` whose `cause` is a `RouterConfigError`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * The isolation level of its transactions. Default: the server's (`default_transaction_isolation`, "read committed"). Reads
   * on replicas are outside of them: see `reads`. With `"serializable"` reads use the primary too: standbys have no such
   * level. With `"repeatable read"` all reads are of one state: on one replica if the session is `readOnly`, else on the
   * primary, where a conflict with what it writes is noticed.
   */
  readonly isolation?: "read uncommitted" | "read committed" | "repeatable read" | "serializable" | undefined
  /**
   * Refuses what may write, with the reason `ReadOnlyViolation`, in all that is composed inside it too; `false` leaves a section
   * that is read-only. Default: as the unit of work around, else `false`.
   */
  readonly readOnly?: boolean | undefined
  /** A serializable, read-only transaction waits until it cannot fail (`DEFERRABLE`). Default: `false`. */
  readonly deferrable?: boolean | undefined
  /** The time limit of one statement, in milliseconds if it is a number (`statement_timeout`). Default: the server's. */
  readonly statementTimeout?: Duration.DurationInput | undefined
  /**
   * The time that a transaction may be idle before the server ends it, in milliseconds if it is a number
   * (`idle_in_transaction_session_timeout`). Default: the server's.
   */
  readonly idleTimeout?: Duration.DurationInput | undefined
  /**
   * `"snapshot"`: all reads see one state of the data, in one REPEATABLE READ transaction on the server of the first of them: a
   * replica, or the primary where no replica is eligible then. From the session's first write on they are in its transaction
   * on the primary, which is REPEATABLE READ too, unless `isolation` says otherwise. Default: `"replica"`, each for itself,
   * but one state with `isolation: "repeatable read"`.
   */
  readonly reads?: "replica" | "snapshot" | undefined
  /**
   * Settings that every transaction of the session has, such as `{ "app.user_id": "42" }` for row-level security. Reads on
   * replicas then run in a transaction with them too. After its end a setting reads as `''`, not NULL: policies should say
   * `nullif(current_setting('app.user_id', true), '')`.
   *
   * All that is composed inside the session has them: `newSession`, `readOnly`, `detached`, hooks, `sql.reserve`, resolvers, the
   * streaming body of a response. A session inside adds its own, or gives one another value. `"none"`: it leaves those around.
   */
  readonly settings?: Readonly<Record<string, string>> | "none" | undefined
}

const currentWork: Effect.Effect<Work | undefined, never, DbRouter> = Effect.flatMap(DbRouter, ({ runner }) =>
  Effect.withFiberRuntime((fiber) => Effect.succeed(runner.workOf(fiber)))
)

const resolve = (options: Options | undefined): Effect.Effect<sessionOptions.Given, SqlError> =>
  options === undefined
    ? defaults
    : Effect.mapError(sessionOptions.resolve(options), (cause) => new SqlError({ cause, message: cause.message }))

const defaults = Effect.orDie(sessionOptions.resolve({}))

type WithOptions<R0> = {
  (options?: Options): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | SqlError, R | R0>
  <A, E, R>(self: Effect.Effect<A, E, R>, options?: Options): Effect.Effect<A, E | SqlError, R | R0>
}

const withOptions = (
  make: <A, E, R>(
    self: Effect.Effect<A, E, R>,
    options: sessionOptions.Given,
    given: boolean
  ) => Effect.Effect<A, E | SqlError, R | DbRouter>
): WithOptions<DbRouter> =>
  dual(
    (args) => Effect.isEffect(args[0]),
    <A, E, R>(self: Effect.Effect<A, E, R>, options?: Options) =>
      Effect.flatMap(resolve(options), (resolved) => make(self, resolved, options !== undefined))
  )

/**
 * Runs an effect in a session: joins the one around it, or opens one, which commits when the effect succeeds and rolls back
 * when it fails, dies or is interrupted. Inside `sql.withTransaction` it joins that transaction.
 *
 * Fails with a `SqlError` when the COMMIT fails, when it was answered with ROLLBACK because a statement had failed
 * (`CommitRolledBack`), when only some groups could commit (`PartialCommit`), or when the outcome of the COMMIT is unknown
 * (`OutcomeUnknown`). Options are for opening one: joining with options fails with `TransactionActive`.
 *
 * @example
 * ```ts
 * import { SqlClient } from "@effect/sql"
 * import { Effect } from "effect"
 * import { DbRouter } from "effect-db-router"
 *
 * // Both or neither.
 * const transfer = (from: number, to: number, amount: number) =>
 *   Effect.flatMap(SqlClient.SqlClient, (sql) =>
 *     Effect.zipRight(
 *       sql`UPDATE account SET balance = balance - ${amount} WHERE id = ${from}`,
 *       sql`UPDATE account SET balance = balance + ${amount} WHERE id = ${to}`
 *     )
 *   ).pipe(DbRouter.session())
 * ```
 *
 * @since 0.1.0
 * @category sessions
 */
export const session: WithOptions<DbRouter> = withOptions((self, resolved, given) =>
  Effect.flatMap(DbRouter, ({ runner }) =>
    Effect.withFiberRuntime((fiber) => {
      if (runner.workOf(fiber) === undefined) return unit.run(self, runner, resolved)
      return given ? Effect.fail(RouterError.toSqlError(RouterError.sessionActive())) : self
    })
  )
)

/**
 * Runs an effect in a session of its own, on connections of its own, whatever is around it: for work that runs at the same
 * time as other work, or must be committed without it.
 *
 * @example
 * ```ts
 * import { SqlClient } from "@effect/sql"
 * import { Effect } from "effect"
 * import { DbRouter } from "effect-db-router"
 *
 * // The attempt is there whatever becomes of the session around.
 * const audited = <A, E, R>(self: Effect.Effect<A, E, R>, what: string) =>
 *   Effect.flatMap(SqlClient.SqlClient, (sql) =>
 *     Effect.zipRight(DbRouter.newSession(sql`INSERT INTO audit (what) VALUES (${what})`), DbRouter.session(self))
 *   )
 * ```
 *
 * @since 0.1.0
 * @category sessions
 */
export const newSession: WithOptions<DbRouter> = withOptions((self, resolved) =>
  Effect.flatMap(DbRouter, ({ runner }) => unit.run(self, runner, resolved))
)

/**
 * Runs an effect in a session of its own that reads one state of the data on one replica, and refuses what may write with
 * the reason `ReadOnlyViolation`. Without an eligible replica, or when the flow sticks to the primary, it is the primary's.
 *
 * @example
 * ```ts
 * import { SqlClient } from "@effect/sql"
 * import { Effect } from "effect"
 * import { DbRouter } from "effect-db-router"
 *
 * // The lines add up to the total: both are of one moment.
 * const statement = Effect.flatMap(SqlClient.SqlClient, (sql) =>
 *   Effect.all({ lines: sql`SELECT * FROM line`, total: sql`SELECT sum(amount) FROM line` })
 * ).pipe(DbRouter.readOnly)
 * ```
 *
 * @since 0.1.0
 * @category sessions
 */
export const readOnly = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E | SqlError, R | DbRouter> =>
  newSession(self, { readOnly: true, reads: "snapshot" })

/**
 * The ways of work out of the session around it.
 *
 * @since 0.1.0
 * @category models
 */
export interface DetachedOptions {
  /** `"none"`: without the `settings` of the session around. Default: with them. */
  readonly settings?: "none" | undefined
  /** `false`: it may write, also where the session around is read-only. Default: as the session around. */
  readonly readOnly?: false | undefined
}

/**
 * Runs an effect outside every session and transaction: each statement commits by itself. For background work that outlives
 * its session. Its writes count for the reads of the session that waits for it. The `settings` of the session hold for it, and
 * so does `readOnly`, unless the options say otherwise: then each statement has a transaction of its own. Dies of a
 * `RouterConfigError` when the options are wrong.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { DbRouter } from "effect-db-router"
 *
 * declare const sendMail: Effect.Effect<void>
 *
 * // A daemon that outlives the request cannot use the request's session.
 * const later = Effect.forkDaemon(DbRouter.detached(sendMail))
 * ```
 *
 * @since 0.1.0
 * @category sessions
 */
export const detached: {
  (options?: DetachedOptions): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  <A, E, R>(self: Effect.Effect<A, E, R>, options?: DetachedOptions): Effect.Effect<A, E, R>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(self: Effect.Effect<A, E, R>, options: DetachedOptions = {}): Effect.Effect<A, E, R> =>
    Either.match(sessionOptions.resolveDetached(options), {
      // They come from the text of a program, not from its input.
      onLeft: Effect.die,
      onRight: () => detach(self, options)
    })
)

const detach = <A, E, R>(self: Effect.Effect<A, E, R>, options: DetachedOptions): Effect.Effect<A, E, R> =>
  Effect.withFiberRuntime((fiber) => {
    const around = fiber.getFiberRef(RoutingContext.flow)
    const kept = (now: rules.Rules) =>
      rules.make(options.settings === "none" ? [] : now.settings, options.readOnly !== false && now.readOnly)
    if (around.shared === undefined) return place.detached(self, kept)
    const tellAround = Effect.map(FiberRef.get(RoutingContext.flow), (flow) => {
      around.absorb(flow.seen)
    })
    const flow = new RoutingContext.Flow({ seen: around.seen })
    return place.detached(Effect.locally(Effect.ensuring(self, tellAround), RoutingContext.flow, flow), kept)
  })

/**
 * The behaviour of `atomic` where the session has already begun a transaction:
 *
 * - `"commit"`: commits it first
 * - `"rollback"`: rolls it back first
 * - `"append"`: goes on in it, and commits or rolls back both; inside another block, or `sql.withTransaction`, it is part of that
 * - `"savepoint"`: runs in a savepoint of it, and leaves the commit to what has begun it
 * - `"fail"`: fails with the reason `TransactionActive`
 *
 * @since 0.1.0
 * @category models
 */
export type Current = "commit" | "rollback" | "append" | "savepoint" | "fail"

/**
 * Runs an effect as one transaction of the session, committed when it succeeds, rolled back when it does not, before the
 * session goes on. `current` (default `"commit"`) says what happens to a transaction that is already open. Without a session
 * it opens one.
 *
 * Blocks beside each other in one session (fibers of an `Effect.all`) take turns, and `commit`, `rollback` and `close` of other fibers
 * wait for the block that runs. Statements of other fibers that are in no block are part of it: they share its transaction.
 *
 * The end of the session does not wait for a block of a fiber that it has not joined: that block is rolled back, and fails with the
 * reason `SessionClosed`. What shares its transaction is rolled back with it, and then the session fails with the reason
 * `CommitRolledBack`.
 *
 * Inside another block, and inside `sql.withTransaction`, nothing can be committed or rolled back behind its back: there `"append"` and
 * `"savepoint"` do not commit, and the others fail with the reason `TransactionActive`. What a block is appended to can only roll
 * back when that block fails, or has not ended: it fails with the reason `CommitRolledBack` at its end, if the failure was caught.
 *
 * @example
 * ```ts
 * import { SqlClient } from "@effect/sql"
 * import { Effect } from "effect"
 * import { DbRouter } from "effect-db-router"
 *
 * // Committed before the next one begins, in one session.
 * const importAll = (names: ReadonlyArray<string>) =>
 *   Effect.flatMap(SqlClient.SqlClient, (sql) =>
 *     Effect.forEach(names, (name) => sql`INSERT INTO customer (name) VALUES (${name})`.pipe(DbRouter.atomic()))
 *   ).pipe(DbRouter.session())
 * ```
 *
 * @since 0.1.0
 * @category sessions
 */
export const atomic: {
  (options?: {
    readonly current?: Current | undefined
  }): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | SqlError, R | DbRouter>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    options?: { readonly current?: Current | undefined }
  ): Effect.Effect<A, E | SqlError, R | DbRouter>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(self: Effect.Effect<A, E, R>, options?: { readonly current?: Current | undefined }) =>
    Effect.flatMap(DbRouter, ({ runner }) =>
      Effect.flatMap(currentWork, (work): Effect.Effect<A, E | SqlError, R | DbRouter> => {
        const current = options?.current ?? "commit"
        if (work === undefined) return session(atomic(self))
        const { level, parts, session: around } = work
        if (level !== undefined || around === undefined || parts !== undefined) {
          if (current === "savepoint") return runner.withTransaction(self)
          return current === "append" && parts !== undefined
            ? parts.add(self)
            : Effect.fail(RouterError.toSqlError(RouterError.transactionActive()))
        }
        return inTurn(runner, work, (waitedSince) =>
          current === "savepoint" && around.isActive
            ? runner.withTransaction(self)
            : block(runner, self, work, waitedSince, around, current)
        )
      })
    )
)

/**
 * Runs what ends the session's transaction by itself, when its turn has come: in between it could commit or roll back half of what
 * another fiber does.
 */
const inTurn = <A, E, R>(
  runner: Runner,
  work: Work,
  use: (waitedSince: number | undefined) => Effect.Effect<A, E | SqlError, R>
): Effect.Effect<A, E | SqlError, R> =>
  Effect.withFiberRuntime((fiber) => {
    const { turns } = work
    const waitedSince = turns.isHeld ? nowOf(fiber)() : undefined
    const inside = runner.provideWork(work.inTurn, 0)(Effect.suspend(() => use(waitedSince)))
    return turns.run(
      Effect.suspend(() => {
        if (work.hasEnded) return Effect.fail(RouterError.toSqlError(RouterError.sessionClosed("its turn")))
        // The block around has ended meanwhile.
        return turns === work.turns ? inside : inTurn(runner, work, use)
      })
    )
  })

/** Ends what is open as `current` says, runs an effect, and commits it, or rolls it back. */
const block = <A, E, R>(
  runner: Runner,
  self: Effect.Effect<A, E, R>,
  work: Work,
  waitedSince: number | undefined,
  around: SessionWork,
  current: Current
): Effect.Effect<A, E | SqlError, R> => {
  const own = Effect.uninterruptibleMask((restore) =>
    Effect.suspend(() => {
      const block = around.beginBlock()
      const inside = runner.provideWork(work.within(block, waitedSince), 0)
      return inside(
        Effect.flatMap(Effect.exit(restore(self)), (exit) =>
          Effect.zipRight(around.endBlock(block, exit, restore), exit)
        )
      )
    })
  )
  if (!around.isActive || current === "append") return own
  return current === "fail"
    ? Effect.fail(RouterError.toSqlError(RouterError.transactionActive()))
    : Effect.zipRight(current === "commit" ? around.commit(undefined) : around.rollback(undefined, "rollback"), own)
}

/**
 * An effect that can also be given the name of one group.
 *
 * @since 0.1.0
 * @category models
 */
export interface ForGroups extends Effect.Effect<void, SqlError, DbRouter> {
  (group: string): Effect.Effect<void, SqlError, DbRouter>
}

const forGroups = (make: (group: string | undefined) => Effect.Effect<void, SqlError, DbRouter>): ForGroups =>
  Object.assign(
    Object.setPrototypeOf((group: string) => make(group), {
      ...Effectable.CommitPrototype,
      commit: () => make(undefined)
    })
  )

type EndEarly = (session: NonNullable<Work["session"]>, group: string | undefined) => Effect.Effect<void, SqlError>

/** Ends the open transactions of a session early, where they are the session's to end. */
const endIn = (
  runner: Runner,
  work: Work | undefined,
  name: string,
  end: EndEarly,
  group?: string
): Effect.Effect<void, SqlError> => {
  if (work?.level !== undefined)
    return Effect.fail(RouterError.toSqlError(RouterError.transactionActive(work.level.group)))
  const session = work?.session
  return work === undefined || session === undefined
    ? Effect.fail(RouterError.toSqlError(RouterError.sessionClosed(name)))
    : inTurn(runner, work, () => end(session, group))
}

const commitEarly: EndEarly = (session, group) => session.commit(group)

const rollbackEarly: EndEarly = (session, group) => session.rollback(group, "rollback")

const early = (name: string, end: EndEarly) =>
  forGroups((group) =>
    Effect.flatMap(DbRouter, ({ runner }) =>
      Effect.flatMap(currentWork, (work) => endIn(runner, work, name, end, group))
    )
  )

/**
 * Commits what the session has done so far, of all groups or (`commit("analytics")`) of one, and gives the connections back.
 * The session goes on: its next statement begins a new transaction. Waits for savepoints that other fibers have open; an
 * interruption before the COMMIT rolls back. `beforeCommit` and `afterCommit` effects run, but while transactions of other groups
 * stay open they wait for those.
 *
 * Fails with the reason `SessionClosed` outside a session, with `TransactionActive` inside `sql.withTransaction`, and with
 * `UnknownGroup`.
 *
 * @since 0.1.0
 * @category early
 */
export const commit: ForGroups = early("commit", commitEarly)

/**
 * Rolls back what the session has done since it began or last committed, and gives the connections back; what other fibers
 * run on them is cancelled. The session goes on. Fails as `commit` does.
 *
 * @since 0.1.0
 * @category early
 */
export const rollback: ForGroups = early("rollback", rollbackEarly)

/**
 * Gives the session's connections back before its end, so that slow work that follows holds none. What was not committed is
 * rolled back. The session goes on. Fails as `commit` does.
 *
 * @since 0.1.0
 * @category early
 */
export const close: ForGroups = early("close", (session, group) => session.rollback(group, "close"))

/**
 * Returns `true` inside a session.
 *
 * @since 0.1.0
 * @category sessions
 */
export const isInSession: Effect.Effect<boolean> = Effect.withFiberRuntime((fiber) =>
  Effect.succeed(place.isInSession(fiber))
)

/**
 * Runs an effect right before the COMMIT of the session (or transaction) around, inside it. When it fails, everything is
 * rolled back, and the session fails with a `SqlError` whose `cause` is the failure. Outside a transaction it runs at once.
 *
 * @since 0.1.0
 * @category hooks
 */
export const beforeCommit = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<void, SqlError, R | DbRouter> =>
  register(
    Effect.mapError(Effect.asVoid(self), (cause) => new SqlError({ cause, message: "beforeCommit failed" })),
    (hooks, effect) => hooks.addBeforeCommit(effect),
    (effect) => effect
  )

/**
 * Runs an effect after the COMMIT of the session (or transaction) around, outside it, and never after a rollback: not of the
 * session, not of the savepoint that it was asked for in, and not when the outcome of the COMMIT is unknown. Its failure is
 * logged; it cannot undo the commit. The session ends after it, even when it is interrupted. Outside a transaction it runs at
 * once.
 *
 * @since 0.1.0
 * @category hooks
 */
export const afterCommit = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<void, never, R | DbRouter> =>
  register(
    logged("afterCommit", self),
    (hooks, effect) => hooks.addAfterCommit(effect),
    (effect) => effect
  )

/**
 * Runs an effect after the session (or transaction, or savepoint) around was rolled back, outside it. Its failure is logged.
 * Outside a transaction it never runs, nor when the outcome is unknown or only some groups were rolled back.
 *
 * @since 0.1.0
 * @category hooks
 */
export const afterRollback = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<void, never, R | DbRouter> =>
  register(
    logged("afterRollback", self),
    (hooks, effect) => hooks.addAfterRollback(effect),
    () => Effect.void
  )

const logged = <A, E, R>(name: string, self: Effect.Effect<A, E, R>): Effect.Effect<void, never, R> =>
  Effect.catchAllCause(Effect.asVoid(self), (cause) => Log.warning(`${name} failed`, cause))

const register = <E, R>(
  self: Effect.Effect<void, E, R>,
  add: (hooks: Hooks, effect: Effect.Effect<void, E>) => Effect.Effect<void, E>,
  outside: (effect: Effect.Effect<void, E, R>) => Effect.Effect<void, E, R>
): Effect.Effect<void, E, R | DbRouter> =>
  Effect.flatMap(DbRouter, ({ runner }) =>
    Effect.flatMap(currentWork, (work) => {
      if (work === undefined) return outside(self)
      return Effect.flatMap(runner.deferred(self), (effect) => {
        work.session?.joins(work.block)
        return add(work.hooks, effect)
      })
    })
  )

/**
 * A session as a resource. `run` puts an effect into it from anywhere; the others are for its fiber and for `run`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Session {
  /** Runs an effect in this session, such as in a fiber that was not forked from its scope. */
  readonly run: <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  /** `DbRouter.commit` in this session. */
  readonly commit: Effect.Effect<void, SqlError>
  /** `DbRouter.rollback` in this session. */
  readonly rollback: Effect.Effect<void, SqlError>
}

/**
 * A session for the rest of a scope: what this fiber and its children run from here on is in it. It commits when the scope
 * closes with success, else rolls back. Inside a session, or `sql.withTransaction`, it is that one, and its end is left to it;
 * joining with options fails with `TransactionActive`.
 *
 * In a layer, put effects into it with `run`: which of them else are in it depends on the fiber that builds the layer.
 *
 * A finalizer cannot fail, so a COMMIT that fails while the scope closes is a defect, with the `SqlError`. Where that matters,
 * end with `commit` of the session, or use `session(effect)`.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Session } from "effect-db-router"
 *
 * declare const work: Effect.Effect<void>
 *
 * // Until the scope closes, what this fiber runs is in the session.
 * const program = Effect.scoped(Effect.zipRight(Session.scoped({ isolation: "serializable" }), work))
 * ```
 *
 * @since 0.1.0
 * @category sessions
 */
export const scoped = (options?: Options): Effect.Effect<Session, SqlError, Scope.Scope | DbRouter> =>
  Effect.flatMap(DbRouter, ({ runner }) =>
    Effect.flatMap(Effect.zip(currentWork, resolve(options)), ([around, resolved]) => {
      if (around === undefined) {
        return Effect.uninterruptible(
          Effect.gen(function* () {
            const around = yield* FiberRef.get(RoutingContext.flow)
            const flow = yield* unit.sharedFlow
            const opened = yield* unit.open(runner, resolved)
            const refs = yield* Effect.getFiberRefs
            // What a finalizer of `Effect.acquireRelease` changes in FiberRefs is undone after it, and with it what the flow has seen.
            yield* Scope.addFinalizerExit(yield* Effect.scope, (exit) =>
              Effect.ensuring(
                closeScoped(opened, refs, exit),
                FiberRef.update(RoutingContext.flow, (now) => (now === flow ? around : now)).pipe(
                  Effect.zipRight(unit.followed(opened)),
                  Effect.zipRight(unit.rejoin(flow))
                )
              )
            )
            yield* FiberRef.set(RoutingContext.flow, flow)
            yield* runner.enter(opened.work)
            return handle(runner, opened.work, flow)
          })
        )
      }
      return options === undefined
        ? Effect.map(FiberRef.get(RoutingContext.flow), (flow) => handle(runner, around, flow))
        : Effect.fail(RouterError.toSqlError(RouterError.transactionActive()))
    })
  )

/** Ends a session with the FiberRefs of the fiber that has opened it: another one may close the scope. */
const closeScoped = (
  { runner, session, work }: unit.Unit,
  refs: FiberRefs.FiberRefs,
  exit: Exit.Exit<unknown, unknown>
): Effect.Effect<void> =>
  restored(
    refs,
    Effect.orDie(
      Exit.isFailure(exit)
        ? session.end(exit)
        : Effect.flatMap(Effect.exit(runner.provideWork(work, 0)(session.beforeCommit)), (prepared) =>
            Effect.zipRight(session.end(prepared), prepared)
          )
    )
  )

const handle = (runner: Runner, work: Work, flow: RoutingContext.Flow): Session => {
  const inside = runner.provideWork(work, 0)
  // What is in the session stays where it is there: an atomic block would wait for itself.
  const run: Session["run"] = (self) =>
    Effect.withFiberRuntime((fiber) =>
      runner.workOf(fiber)?.session === work.session
        ? self
        : inside(flow.shared === undefined ? self : Effect.locally(self, RoutingContext.flow, flow))
    )
  const end = (name: string, how: EndEarly) =>
    run(Effect.withFiberRuntime<void, SqlError>((fiber) => endIn(runner, runner.workOf(fiber), name, how)))
  return { run, commit: end("commit", commitEarly), rollback: end("rollback", rollbackEarly) }
}
