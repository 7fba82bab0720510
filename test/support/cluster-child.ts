/** A program with a cluster in the folder of its first argument, which ends in the way of its second one. */
// No barrels: it is started many times.
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import * as PgCluster from "effect-db-router/testing/PgCluster"

const [directory, ending] = process.argv.slice(2)

const program = Effect.gen(function* () {
  // Never closed: the cluster has to notice by itself.
  const scope = yield* Scope.make()
  const { primary, replicas } = yield* Scope.extend(PgCluster.make({ replicas: 1, directory }), scope)
  yield* primary.query("select 1")
  if (ending === "frozen") yield* replicas[0]!.freeze
  if (ending === "killed") yield* replicas[0]!.kill
  yield* Effect.sync(() => process.stdout.write("up\n"))
  if (ending === "exit") yield* Effect.sync(() => process.exit(7))
  if (ending === "throw") setTimeout(() => Promise.reject(new Error("uncaught")), 1)
  // Neither servers nor watchdog keep a program alive.
  if (ending !== "nothing") setTimeout(() => {}, 60_000)
})

Effect.runFork(program)
