/**
 * A route for every flow: early commits, concurrent sessions, background jobs, ... (--serve: until Ctrl-C)
 *
 * It goes through all of them, says what came of each, and ends; with exit code 1 if one of them did not do what `Flows.ts`
 * says. With `--serve` it serves them until Ctrl-C.
 */
import { createServer } from "node:http"
import { HttpServer } from "@effect/platform"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Data, Effect, Layer, Schedule } from "effect"
import { DbRouter } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import { type Flow, flows } from "./Flows.js"
import * as Notes from "./Notes.js"
import { Server } from "./Server.js"

const Router = Layer.unwrapEffect(
  Effect.map(PgCluster.PgCluster, ({ primary, replicas }) =>
    DbRouter.layer({
      groups: {
        default: [{ url: primary.url, name: primary.name }],
        read: replicas.map(({ name, url }) => ({ url, name }))
      }
    })
  )
)

const Schema = Layer.effectDiscard(Notes.create)

class Unexpected extends Data.TaggedError("Unexpected")<{ readonly message: string }> {}

const isSame = (left: unknown, right: unknown) => JSON.stringify(left) === JSON.stringify(right)

const drive = (address: string) => (flow: Flow) =>
  Effect.gen(function* () {
    yield* Notes.clear
    const response = yield* Effect.promise(() => fetch(`${address}${flow.path}`, { method: "POST" }))
    const body = yield* Effect.promise(() => response.text())
    if (response.status !== flow.status || (flow.body !== undefined && !isSame(JSON.parse(body), flow.body))) {
      return yield* new Unexpected({ message: `${flow.path} was answered with ${response.status} ${body}` })
    }
    const notes = yield* DbRouter.primary(Notes.all).pipe(
      Effect.filterOrFail(
        (notes) => isSame([...notes].sort(), flow.notes),
        (notes) => new Unexpected({ message: `${flow.path} left ${JSON.stringify(notes)}` })
      ),
      // The background job may still be at work.
      Effect.retry(Schedule.spaced("20 millis").pipe(Schedule.upTo("5 seconds")))
    )
    yield* Console.log(`${response.status} POST ${flow.path} leaves ${JSON.stringify(notes)}`)
  })

const main = HttpServer.addressFormattedWith((address) =>
  process.argv.includes("--serve")
    ? Effect.zipRight(
        Effect.forEach(flows, ({ path }) => Console.log(`curl -i -X POST ${address}${path}`), { discard: true }),
        Effect.never
      )
    : Effect.forEach(flows, drive(address), { discard: true })
)

NodeRuntime.runMain(
  Effect.provide(
    main,
    Server.pipe(
      Layer.provideMerge(NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1" })),
      Layer.provideMerge(Schema),
      Layer.provideMerge(Router),
      Layer.provide(PgCluster.layer({ replicas: 1 }))
    )
  )
)
