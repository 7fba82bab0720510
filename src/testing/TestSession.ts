/**
 * Tests that leave nothing behind: a program, its sessions and its HTTP requests run inside one transaction on one
 * connection to the primary, which is rolled back.
 *
 * What would be a transaction of its own is a savepoint: a commit releases it, a rollback goes back to it, and a statement
 * that would commit by itself has one to itself, so that its failure harms nothing else. What would go to a replica or to a
 * bind group goes to that connection too. What would run at the same time on connections of its own (`newSession`,
 * requests) runs one after the other; what begins inside something that is open is nested in it.
 *
 * Not the same as outside a test: deferred constraints are checked only by a real COMMIT, `NOTIFY` is sent by one, a
 * session's isolation level does not apply, what a function or `SELECT set_config($1, ..)` sets stays until the end of the test
 * (the option `settings` does not, nor what a text sets by name), and statements that cannot run in a transaction (`VACUUM`, `CREATE INDEX CONCURRENTLY`) fail. Do not wait inside a
 * transaction for something that needs one beside it.
 *
 * @since 0.1.0
 */
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import type { DbRouter } from "../DbRouter.js"
import type { Engine } from "../Engine.js"
import { ofSession } from "../internal/classifier/leaves.js"
import * as service from "../internal/client/service.js"
import { command } from "../internal/driver/run.js"
import * as engineOverride from "../internal/routing/engineOverride.js"
import * as testConnection from "../internal/testSession/testConnection.js"

const begin: Effect.Effect<Engine, SqlError, DbRouter | Scope.Scope> = Effect.flatMap(
  service.DbRouter,
  ({ runner }) => {
    const { primary } = runner.router
    return Effect.gen(function* () {
      const connection = yield* primary.reserve
      connection.leave(ofSession)
      const run = (sql: string) => connection.query(command(sql))
      yield* Effect.acquireRelease(run("BEGIN"), () =>
        Effect.catchAllCause(Effect.zipRight(connection.cancel, run("ROLLBACK")), () => connection.destroy)
      )
      return testConnection.engineOf(primary, new testConnection.TestConnection(connection))
    })
  }
)

/**
 * Runs an effect inside one transaction that is rolled back when it ends, however it ends. Servers and fibers that are
 * started inside belong to it. Tests may run at the same time, each on a connection of its own.
 *
 * @example
 * ```ts
 * import { SqlClient } from "@effect/sql"
 * import { it } from "@effect/vitest"
 * import { Effect, type Layer } from "effect"
 * import type { DbRouter } from "effect-db-router"
 * import { TestSession } from "effect-db-router/testing"
 *
 * declare const AppLive: Layer.Layer<DbRouter.Services>
 *
 * it.effect("adds a customer, and leaves nothing behind", () =>
 *   Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO customer (name) VALUES ('Ada')`).pipe(
 *     TestSession.rollback,
 *     Effect.provide(AppLive)
 *   )
 * )
 * ```
 *
 * @since 0.1.0
 * @category testing
 */
export const rollback = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E | SqlError, R | DbRouter> =>
  Effect.acquireUseRelease(
    Scope.make(),
    (scope) =>
      Effect.flatMap(Scope.extend(begin, scope), (engine) =>
        self.pipe(
          Effect.locally(engineOverride.currentTest, engine),
          Effect.locally(engineOverride.currentNode, new engineOverride.Node(undefined))
        )
      ),
    Scope.close
  )

/**
 * The same for everything that uses the router while the layer lives, in whatever fiber: for `layer(...)` of
 * `@effect/vitest`, where a server is built once for several tests. They see what the ones before have done.
 *
 * @example
 * ```ts
 * import { SqlClient } from "@effect/sql"
 * import { layer } from "@effect/vitest"
 * import { Effect, Layer } from "effect"
 * import type { DbRouter } from "effect-db-router"
 * import { TestSession } from "effect-db-router/testing"
 *
 * declare const AppLive: Layer.Layer<DbRouter.Services>
 *
 * layer(TestSession.layer.pipe(Layer.provideMerge(AppLive)))("customers", (it) => {
 *   it.effect("have names", () => Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT name FROM customer`))
 * })
 * ```
 *
 * @since 0.1.0
 * @category testing
 */
export const layer: Layer.Layer<never, SqlError, DbRouter> = Layer.scopedDiscard(
  Effect.flatMap(service.DbRouter, ({ runner: { router } }) =>
    Effect.flatMap(begin, (engine) =>
      Effect.acquireRelease(
        Effect.sync(() => {
          const before = router.test
          router.test = engine
          return before
        }),
        (before) =>
          Effect.sync(() => {
            router.test = before
          })
      )
    )
  )
)
