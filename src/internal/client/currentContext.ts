/** In which transactions and sessions a fiber is, of all routers. */
import * as SqlClient from "@effect/sql/SqlClient"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as FiberRef from "effect/FiberRef"
import { globalValue } from "effect/GlobalValue"
import type * as Scope from "effect/Scope"
import { Outskirts, type Rules } from "../context/rules.js"
import { Work } from "../transaction/work.js"
import { RoutedConnection, type Works } from "./routedConnection.js"

type AnyFiber = Fiber.RuntimeFiber<unknown, unknown>

/** The keys in the context of the transactions of all routers begin with this. */
export const workPrefix = "effect-db-router/Work/"

/** The services of a context without the transactions and sessions of every router. */
export const withoutWork = (context: Context.Context<never>): Map<string, unknown> => {
  const services = new Map(context.unsafeMap)
  for (const key of services.keys()) {
    if (key.startsWith(workPrefix)) services.delete(key)
  }
  if (services.get(SqlClient.TransactionConnection.key)?.[0] instanceof RoutedConnection) {
    services.delete(SqlClient.TransactionConnection.key)
  }
  return services
}

const connectionIn = (services: Map<string, unknown>): unknown => {
  const transaction = services.get(SqlClient.TransactionConnection.key)
  return Array.isArray(transaction) ? transaction[0] : undefined
}

/** Runs an effect outside the transactions and sessions of every router; what has been set there holds if `rulesOf` keeps it. */
export const detached = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  rulesOf: (rules: Rules) => Rules | undefined = (rules) => rules
): Effect.Effect<A, E, R> =>
  Effect.withFiberRuntime((fiber) => {
    const ambient = fiber.getFiberRef(ambientWork)
    return Effect.mapInputContext(Effect.locally(effect, ambientWork, undefined), (context: Context.Context<R>) => {
      const services = withoutWork(context)
      const connectionKey = SqlClient.TransactionConnection.key
      // The innermost unit comes last. One that keeps nothing has left what those around it have set.
      const keep = (works: Works, place: Work | Outskirts | undefined) => {
        const rules = place?.rules && rulesOf(place.rules)
        const outskirts = rules && new Outskirts(rules)
        const connection = connectionIn(services)
        const isOurs = connection instanceof RoutedConnection
        if (outskirts !== undefined) {
          services.set(works.workKey, outskirts)
          if (connection === undefined || isOurs) {
            services.set(connectionKey, [new RoutedConnection(works, outskirts), 0])
          }
        } else {
          services.delete(works.workKey)
          if (isOurs && connection.belongsTo(works)) services.delete(connectionKey)
        }
      }
      if (ambient !== undefined) keep(ambient.works, ambient.work)
      // Units of several routers may be around: the context has those that the connection does not tell of.
      for (const [key, place] of context.unsafeMap) {
        if (!key.startsWith(workPrefix)) continue
        const rules = place.rules && rulesOf(place.rules)
        if (rules === undefined) services.delete(key)
        else services.set(key, new Outskirts(rules))
      }
      context.unsafeMap.get(connectionKey)?.[0]?.tellPlace?.(keep)
      return Context.unsafeMake<R>(services)
    })
  })

/** Whether a fiber is in a session of any router. */
export const isInSession = (fiber: AnyFiber): boolean => {
  const isIn = (work: Work | undefined) =>
    work?.session !== undefined && !(work.session.ended && fiber.getFiberRef(outlivesSession))
  for (const [key, work] of fiber.currentContext.unsafeMap) {
    if (key.startsWith(workPrefix) && work instanceof Work && isIn(work)) return true
  }
  return isIn(fiber.getFiberRef(ambientWork)?.work)
}

/**
 * Whether statements are autocommitted after the end of their session, instead of refused. For the body of a response: the
 * session ends before its first byte.
 */
export const outlivesSession = globalValue("effect-db-router/place/outlivesSession", () => FiberRef.unsafeMake(false))

/**
 * The session of a scope (`Session.scoped`). It cannot be in the context: what a scope changes there is undone too early or
 * too late.
 */
export const ambientWork = globalValue("effect-db-router/place/ambientWork", () =>
  FiberRef.unsafeMake<{ readonly works: Works; readonly work: Work } | undefined>(undefined)
)

/**
 * Sets a FiberRef until the scope closes. The scope may be closed in another fiber, where nothing is to be undone.
 */
export const setScoped = <A>(ref: FiberRef.FiberRef<A>, value: A): Effect.Effect<void, never, Scope.Scope> =>
  Effect.asVoid(
    Effect.acquireRelease(
      Effect.flatMap(FiberRef.get(ref), (before) => Effect.as(FiberRef.set(ref, value), before)),
      (before) => FiberRef.update(ref, (now) => (now === value ? before : now))
    )
  )
