import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberRef from "effect/FiberRef"
import { identity } from "effect/Function"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import type { ExclusiveConnection } from "../../Engine.js"
import { ofSession } from "../classifier/leaves.js"
import { Outskirts, onConnection, optionsOf, type Rules } from "../context/rules.js"
import { aborting, committing } from "../routing/commit.js"
import type { Target } from "../routing/decide.js"
import { currentNode, inside } from "../routing/engineOverride.js"
import type { Router } from "../routing/router.js"
import { Session } from "../session/session.js"
import type { Outcome } from "../telemetry/outcome.js"
import type { Trip } from "../telemetry/statementRun.js"
import { Hooks, type Outside } from "../transaction/hooks.js"
import { setting } from "../transaction/lazyBegin.js"
import { Transaction } from "../transaction/transaction.js"
import { Work } from "../transaction/work.js"
import { clockOf } from "../util/clock.js"
import * as refs from "../util/refs.js"
import { ambientWork, outlivesSession, setScoped, withoutWork, workPrefix } from "./currentContext.js"
import { ReservedConnection, RoutedConnection, type Works } from "./routedConnection.js"

type AnyFiber = Fiber.RuntimeFiber<unknown, unknown>

let runners = 0

/** The transactions of a router's client, and the look-up of a fiber's own. */
export class Runner implements Works {
  // `@effect/sql` has one tag for the transactions of all clients. Ours is there too, for resolvers and for clients that
  // are to take part; a tag of our own finds it again below a transaction of another client.
  readonly workKey = `${workPrefix}${++runners}`
  /** The connection for one statement: the one that the context of its fiber names. */
  readonly connection = (trip: Trip | undefined): Connection => new RoutedConnection(this, undefined, trip)

  /** The attributes of all spans of this client. */
  readonly spanAttributes: ReadonlyArray<readonly [string, unknown]>

  constructor(readonly router: Router) {
    const { address, client } = router.primary
    this.spanAttributes = [
      ...Object.entries(client.spanAttributes ?? {}),
      ["db.system.name", "postgresql"],
      ["db.namespace", address.database ?? client.username ?? "postgres"]
    ]
  }

  /** The transactions and the session that a fiber is in. */
  workOf(fiber: AnyFiber): Work | undefined {
    const place = this.placeIn(fiber)
    return place instanceof Outskirts ? undefined : place
  }

  /** What holds for a fiber because of the unit of work around it, if it is in none or in one of its own. */
  rulesOf(fiber: AnyFiber): Rules | undefined {
    return this.placeIn(fiber)?.rules
  }

  /** The transactions and the session that a fiber is in, or what holds for it outside of them. */
  placeIn(fiber: AnyFiber): Work | Outskirts | undefined {
    const place = this.findPlace(fiber)
    if (place instanceof Outskirts || place?.session?.ended !== true || !fiber.getFiberRef(outlivesSession))
      return place
    const { rules } = place
    return rules && new Outskirts(rules)
  }

  private findPlace(fiber: AnyFiber): Work | Outskirts | undefined {
    const services = fiber.currentContext.unsafeMap
    // Resolvers bring only the tag of `@effect/sql` along, and ours from where they were made, if that was in a transaction.
    const transaction = services.get(SqlClient.TransactionConnection.key)
    const connection = transaction?.[0]
    if (connection instanceof RoutedConnection && connection.belongsTo(this)) {
      return connection.work
    }
    const own = services.get(this.workKey)
    if (own !== undefined) {
      return own
    }
    const ambient = fiber.getFiberRef(ambientWork)
    return ambient?.works === this ? ambient.work : undefined
  }

  /**
   * Puts this fiber into a session until the scope closes. Into its context too, as far as that lasts: there resolvers see whose
   * requests may share a batch.
   */
  enter(work: Work): Effect.Effect<void, never, Scope.Scope> {
    const transaction: readonly [RoutedConnection, number] = [new RoutedConnection(this, work), 0]
    const enter = FiberRef.update(FiberRef.currentContext, (context) =>
      Context.add(context, SqlClient.TransactionConnection, transaction)
    )
    const leave = FiberRef.update(FiberRef.currentContext, (context) =>
      context.unsafeMap.get(SqlClient.TransactionConnection.key) === transaction
        ? Context.omit(SqlClient.TransactionConnection)(context)
        : context
    )
    return Effect.zipRight(
      setScoped(ambientWork, { works: this, work }),
      Effect.acquireRelease(enter, () => leave)
    )
  }

  /** Runs an effect in the transactions and sessions that a fiber is in now, wherever it is called from. */
  placeOf(fiber: AnyFiber): Outside {
    const services = fiber.currentContext.unsafeMap
    const keys = [this.workKey, SqlClient.TransactionConnection.key]
    const ambient = fiber.getFiberRef(ambientWork)
    return <A, E, R>(effect: Effect.Effect<A, E, R>) =>
      Effect.mapInputContext(Effect.locally(effect, ambientWork, ambient), (context: Context.Context<R>) => {
        const there = new Map(context.unsafeMap)
        for (const key of keys) {
          if (services.has(key)) there.set(key, services.get(key))
          else there.delete(key)
        }
        return Context.unsafeMake<R>(there)
      })
  }

  /** Runs an effect with its statements inside a transaction or a session; `span`, if there is one, is that of it. */
  provideWork(
    work: Work,
    depth: number,
    span?: Tracer.Span
  ): <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R> {
    const transaction = Array.of<unknown>(new RoutedConnection(this, work), depth)
    return <A, E, R>(effect: Effect.Effect<A, E, R>) =>
      refs.locally(insideTest(effect), (fiber) => {
        const services = new Map(fiber.currentContext.unsafeMap)
        services.set(this.workKey, work)
        services.set(SqlClient.TransactionConnection.key, transaction)
        if (span !== undefined) services.set(Tracer.ParentSpan.key, span)
        return refs.put(fiber, FiberRef.currentContext, Context.unsafeMake<never>(services))
      })
  }

  /** Runs an effect outside of every transaction and session, where the same holds as inside of one. */
  around(rules: Rules): Outside {
    const place = new Outskirts(rules)
    const transaction = [new RoutedConnection(this, place), 0]
    return <A, E, R>(effect: Effect.Effect<A, E, R>) =>
      Effect.mapInputContext(Effect.locally(effect, ambientWork, undefined), (context: Context.Context<R>) => {
        const services = withoutWork(context)
        services.set(this.workKey, place)
        services.set(SqlClient.TransactionConnection.key, transaction)
        return Context.unsafeMake<R>(services)
      })
  }

  alone<A>(rules: Rules, use: (work: Work) => Effect.Effect<A, SqlError>): Effect.Effect<A, SqlError> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.suspend(() => {
        const { session, work } = this.unitOf(rules)
        return Effect.flatMap(Effect.exit(restore(use(work))), (exit) => Effect.zipRight(session.end(exit), exit))
      })
    )
  }

  rowsAlone<A>(rules: Rules, use: (work: Work) => Stream.Stream<A, SqlError>): Stream.Stream<A, SqlError> {
    return Stream.unwrapScoped(
      Effect.map(
        Effect.acquireRelease(
          Effect.sync(() => this.unitOf(rules)),
          ({ session }) => (session.ended ? Effect.void : Effect.orDie(session.end(Exit.fail("not read to its end"))))
        ),
        ({ session, work }) =>
          Stream.concat(use(work), Stream.drain(Stream.fromEffect(Effect.suspend(() => session.end(Exit.void)))))
      )
    )
  }

  private unitOf(rules: Rules): { readonly session: Session; readonly work: Work } {
    const session = new Session(this.router, optionsOf(rules), identity)
    return { session, work: new Work(session, undefined, session.hooks, undefined) }
  }

  /** An effect for later, with the services of now and the transactions of then. */
  deferred<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<Effect.Effect<A, E>, never, R> {
    return Effect.map(Effect.context<R>(), (now) =>
      Effect.mapInputContext(effect, (then: Context.Context<never>) => {
        const services = withoutWork(now)
        for (const key of [this.workKey, SqlClient.TransactionConnection.key]) {
          if (then.unsafeMap.has(key)) services.set(key, then.unsafeMap.get(key))
        }
        return Context.unsafeMake<R>(services)
      })
    )
  }

  /** A connection of one's own, from the group that the fiber is bound to, else from the default group. */
  readonly reserve: Effect.Effect<Connection, SqlError, Scope.Scope> = Effect.withFiberRuntime((fiber) =>
    Effect.flatMap(this.router.target(fiber, this.workOf(fiber)), ({ engine, group }) =>
      Effect.flatMap(Effect.scope, (scope) => {
        const rules = this.rulesOf(fiber)
        return this.router.begun(group, engine, (engine) =>
          Effect.flatMap(Scope.extend(engine.reserve, scope), (connection) => {
            const reserved = new ReservedConnection(this.router, group, engine, connection, rules?.readOnly)
            return rules === undefined ? Effect.succeed(reserved) : Effect.as(configure(connection, rules), reserved)
          })
        )
      })
    )
  )

  /**
   * Runs an effect in a transaction of the group that the fiber is bound to (else the default group), or in a savepoint
   * when there is one already. Commits on success, rolls back on failure, defect and interruption.
   */
  readonly withTransaction = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | SqlError, R> =>
    Effect.useSpan("sql.transaction", { kind: "client", captureStackTrace: false }, (span) =>
      Effect.withFiberRuntime<A, E | SqlError, R>((fiber) => {
        const outer = this.workOf(fiber)
        const rules = outer === undefined ? this.rulesOf(fiber) : undefined
        if (rules !== undefined) {
          // In a session of its own, which has what holds here.
          return Effect.uninterruptibleMask((restore) =>
            Effect.suspend(() => {
              const { session, work } = this.unitOf(rules)
              const inside = Effect.zipLeft(this.withTransaction(effect), session.beforeCommit)
              return Effect.flatMap(Effect.exit(restore(this.provideWork(work, 0)(inside))), (exit) =>
                Effect.zipRight(session.end(exit), exit)
              )
            })
          )
        }
        return Effect.flatMap(this.router.target(fiber, outer), (target) =>
          this.within(target, fiber, outer, effect, span)
        )
      })
    )

  private within<A, E, R>(
    target: Target,
    fiber: AnyFiber,
    outer: Work | undefined,
    effect: Effect.Effect<A, E, R>,
    span: Tracer.Span
  ): Effect.Effect<A, E | SqlError, R> {
    for (const [key, value] of this.spanAttributes) span.attribute(key, value)
    span.attribute("db.router.group", target.group)
    span.attribute("db.router.engine", target.engine.name)
    const depth = this.depthOf(fiber)
    const hooks = new Hooks()
    let inner: Transaction | undefined
    const insideOf = (effect: Effect.Effect<A, E | SqlError, R>) => (level: Transaction) => {
      inner = level
      const work = new Work(outer?.session, level, hooks, outer)
      return this.provideWork(work, depth, span)(Effect.flatMap(effect, (result) => Effect.as(work.whole, result)))
    }
    // Not by the exit: an interruption can come while the RELEASE is under way.
    const endedAs = () => (inner?.isReleased === true ? undefined : (inner?.rolledBackAs ?? "rolled back"))
    const inside = insideOf(effect)
    const enclosing = outer?.transaction(target.group)
    if (outer !== undefined && enclosing !== undefined) {
      return withEvent(withHooks(enclosing.within(inside), hooks, outer.hooks, endedAs), span, "savepoint")
    }
    if (outer?.session !== undefined) {
      // An early commit of another fiber may end the transaction before the savepoint is there.
      const root = this.router.begun(
        target.group,
        target.engine,
        (engine, since) => outer.session!.transaction(target.group, engine, since),
        identity,
        outer
      )
      const enter: Effect.Effect<A, E | SqlError, R> = Effect.flatMap(root, (root) => root.within(inside, enter))
      return withEvent(withHooks(enter, hooks, outer.hooks, endedAs), span, "savepoint")
    }
    const whole = insideOf(Effect.zipLeft(effect, hooks.beforeCommit))
    return withEvent(insideTest(this.inTransaction(target, hooks, whole)), span, "commit")
  }

  private depthOf(fiber: AnyFiber): number {
    const transaction = fiber.currentContext.unsafeMap.get(SqlClient.TransactionConnection.key)
    return transaction === undefined ? 0 : transaction[1] + 1
  }

  private inTransaction<A, E, R>(
    { engine, group }: Target,
    hooks: Hooks,
    use: (level: Transaction) => Effect.Effect<A, E, R>
  ): Effect.Effect<A, E | SqlError, R> {
    const { mark, transactionEnded: onEnd } = this.router
    const anew = this.router.anew(group, engine)
    const begin = { begin: "BEGIN", settings: [], movable: false, replaceable: false, mark, anew, onEnd }
    return Effect.uninterruptibleMask((restore) => {
      let outcome: Outcome = "rolled back"
      const note = (became: Outcome) => {
        outcome = became
      }
      const begun = this.router.begun(
        group,
        engine,
        (engine) => Transaction.begin(group, engine, begin, restore),
        restore
      )
      return Effect.flatMap(begun, (transaction) =>
        Effect.flatMap(Effect.exit(restore(use(transaction))), (exit) =>
          Effect.zipRight(
            Exit.isSuccess(exit)
              ? committing(this.router, transaction, transaction.commit, note)
              : aborting(this.router, transaction, note),
            exit
          )
        )
      ).pipe(Effect.ensuring(Effect.suspend(() => hooks.close(outcome))))
    })
  }
}

/** Gives a connection of one's own what holds for who has reserved it. */
const configure = (connection: ExclusiveConnection, rules: Rules): Effect.Effect<unknown, SqlError> =>
  Effect.suspend(() => {
    connection.leave(ofSession)
    return connection.query(setting(onConnection(rules), false))
  })

// Outside tests there is nothing to nest, and a FiberRef less to set.
const insideTest = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.withFiberRuntime((fiber) => (fiber.getFiberRef(currentNode) === undefined ? effect : inside(effect)))

/** Notes on the span how a transaction has ended, under the names that `@effect/sql` has for it. */
const withEvent = <A, E, R>(
  transaction: Effect.Effect<A, E, R>,
  span: Tracer.Span,
  success: "commit" | "savepoint"
): Effect.Effect<A, E, R> =>
  Effect.onExit(transaction, (exit) =>
    Effect.withFiberRuntime<void>((fiber) => {
      const at = clockOf(fiber).unsafeCurrentTimeNanos()
      span.event(`db.transaction.${Exit.isSuccess(exit) ? success : "rollback"}`, at)
      return Effect.void
    })
  )

// What a savepoint has asked for waits for the end of the transaction around it, and is dropped with it.
const withHooks = <A, E, R>(
  savepoint: Effect.Effect<A, E, R>,
  hooks: Hooks,
  outer: Hooks,
  endedAs: () => Outcome | undefined
): Effect.Effect<A, E, R> =>
  Effect.onExit(savepoint, () =>
    Effect.suspend(() => {
      const outcome = endedAs()
      if (outcome !== undefined) return hooks.close(outcome)
      outer.absorb(hooks)
      return Effect.void
    })
  )
