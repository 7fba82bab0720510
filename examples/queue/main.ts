/**
 * A job with a token: a worker in another process sees what the job is about.
 *
 * A producer writes, and tells a worker in another process by a queue. The message has a token, so that the worker's reads on
 * replicas see the write. It says what the worker saw, with the token and without it, and ends; with exit code 1 if that was
 * not what should be.
 */
import { type ChildProcess, fork } from "node:child_process"
import { randomBytes } from "node:crypto"
import { fileURLToPath } from "node:url"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { ConfigProvider, Console, Data, Effect, Layer, Option, Redacted, Schema } from "effect"
import { Consistency, DbRouterLive } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import { create, Done, Job, place } from "./Orders.js"

class Unexpected extends Data.TaggedError("Unexpected")<{ readonly message: string }> {}

// #region producer
const produce = (order: number, total: number) =>
  Effect.gen(function* () {
    yield* place(order, total)
    // After the COMMIT: the position that the consumer's reads need.
    return new Job({ order, token: yield* Consistency.currentToken })
  })
// #endregion producer

type Environment = Record<string, string>

const key = randomBytes(32).toString("base64")

/** The options that both processes share: the servers, and the key. */
const environmentOf = ({ primary, replicas }: PgCluster.Cluster): Environment => ({
  DATABASE_URL: Redacted.value(primary.url),
  DATABASE_REPLICA_URLS: replicas.map(({ url }) => Redacted.value(url)).join(","),
  DB_ROUTER_CONSISTENCY: "causal",
  DB_ROUTER_TOKEN_KEYS: key
})

const startWorker = (environment: Environment) =>
  Effect.acquireRelease(
    Effect.sync(() =>
      fork(fileURLToPath(new URL("worker.ts", import.meta.url)), { env: { ...process.env, ...environment } })
    ),
    (worker) => Effect.sync(() => worker.kill())
  )

/** Sends a job to the worker, and waits for what it has done. */
const send = (worker: ChildProcess, job: Job) =>
  Effect.async<unknown, Unexpected>((resume) => {
    worker.once("message", (message) => resume(Effect.succeed(message)))
    worker.once("exit", () => resume(new Unexpected({ message: "The worker has ended" })))
    worker.send(Schema.encodeSync(Job)(job))
  }).pipe(Effect.flatMap(Schema.decodeUnknown(Done)), Effect.timeout("30 seconds"))

const expect = (what: string, { server, total }: Done, holds: boolean) =>
  holds
    ? Console.log(`${what}: ${total === null ? "no such order" : `a total of ${total}`}, read on ${server}`)
    : new Unexpected({ message: `${what}: ${total} on ${server}` })

const program = Effect.gen(function* () {
  const cluster = yield* PgCluster.PgCluster
  const worker = yield* startWorker(yield* environment)
  yield* create
  yield* cluster.awaitReplayed

  // A replica that lags, for as long as it takes to see what that does.
  yield* Effect.forEach(cluster.replicas, (replica) => replica.pauseReplay)
  const job = yield* produce(1, 42)
  const without = yield* send(worker, new Job({ ...job, token: Option.none() }))
  yield* expect("No replica has it, without the token", without, without.total === null && without.server !== "primary")
  const lagging = yield* send(worker, job)
  yield* expect("No replica has it, with the token", lagging, lagging.total === 42 && lagging.server === "primary")

  yield* Effect.forEach(cluster.replicas, (replica) => replica.resumeReplay)
  yield* cluster.awaitReplayed
  const replayed = yield* send(worker, job)
  yield* expect(
    "The replicas have it, with the token",
    replayed,
    replayed.total === 42 && replayed.server !== "primary"
  )
})

const environment = Effect.map(PgCluster.PgCluster, environmentOf)

const Router = DbRouterLive.pipe(
  Layer.provide(
    Layer.unwrapEffect(
      Effect.map(environment, (environment) =>
        Layer.setConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(environment))))
      )
    )
  )
)

program.pipe(
  Effect.scoped,
  Effect.provide(Router),
  Effect.provide(PgCluster.layer({ replicas: 2 })),
  NodeRuntime.runMain
)
