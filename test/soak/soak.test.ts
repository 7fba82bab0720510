/** The rows of `npm run soak`, each for a few seconds. That of Patroni needs its packages, and is only there. */
import { assert, layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { PgCluster } from "effect-db-router/testing"
import { short } from "./Pace.js"
import { checksOf, shortfalls } from "./Row.js"
import { movesPrimary, rows } from "./rows/index.js"
import { prepare } from "./Servers.js"

const cluster = Layer.tap(PgCluster.layer({ replicas: 2 }), (context) =>
  Effect.provide(Effect.flatMap(PgCluster.PgCluster, prepare), context)
)

// What moves the primary comes last: the others count on it where it was.
const inOrder = [...rows].sort((a, b) => Number(movesPrimary(a)) - Number(movesPrimary(b)))

/** Ten times what a row takes on an idle machine. */
const limit = 120_000

layer(cluster, { timeout: "2 minutes", excludeTestServices: true })("under a steady, mixed load", (it) => {
  for (const { fault, mustShow, name, run } of inOrder) {
    it.scoped(
      `${name}: ${fault}: ${mustShow}`,
      () =>
        Effect.gen(function* () {
          const measured = yield* run(yield* PgCluster.PgCluster, short)
          assert.strictEqual(shortfalls(checksOf(measured)).join("\n"), "")
        }),
      limit
    )
  }
})
