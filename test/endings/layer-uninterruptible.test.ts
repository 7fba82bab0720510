/** A layer that is built where nothing interrupts (an `acquire`, a finalizer) ends what goes on by itself when its scope closes. */
import { SqlClient, type SqlError } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, Exit, Layer, Scope } from "effect"
import { DbRouter, type RouterError } from "effect-db-router"
import * as RouterTest from "../support/router.js"

layer(RouterTest.cluster, { excludeTestServices: true, timeout: "2 minutes" })(
  "a layer built where nothing interrupts",
  (it) => {
    const all: ReadonlyArray<RouterTest.Options> = [{}, { health: false }, { health: { interval: "200 millis" } }]
    for (const options of all) {
      it.effect(`is used and closed: ${JSON.stringify(options)}`, () =>
        Effect.gen(function* () {
          const cluster = yield* RouterTest.PgCluster.PgCluster
          const router = Layer.fresh(DbRouter.layer(RouterTest.optionsFor(cluster, options)))
          const ended = yield* Deferred.make<
            ReadonlyArray<unknown>,
            SqlError.SqlError | RouterError.RouterConfigError
          >()
          const program = Effect.gen(function* () {
            const scope = yield* Scope.make()
            const context = yield* Layer.buildWithScope(router, scope)
            const rows = yield* Effect.provide(
              Effect.flatMap(SqlClient.SqlClient, (sql) => sql<{ one: number }>`SELECT 1 AS one`),
              context
            )
            yield* Effect.sleep("500 millis")
            yield* Scope.close(scope, Exit.void)
            return rows
          })
          yield* Effect.forkDaemon(Effect.uninterruptible(Effect.intoDeferred(program, ended)))
          assert.deepStrictEqual(yield* Effect.timeout(Deferred.await(ended), "20 seconds"), [{ one: 1 }])
        })
      )
    }
  }
)
