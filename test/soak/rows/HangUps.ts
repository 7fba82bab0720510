/** Clients of an HTTP server that hang up at any moment of their request. */
import { createServer } from "node:http"
import * as Net from "node:net"
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { layer as NodeHttpServer } from "@effect/platform-node/NodeHttpServer"
import { SqlClient } from "@effect/sql"
import { Context, Effect, Layer } from "effect"
import { HttpSession } from "effect-db-router"
import * as Rig from "../Rig.js"
import { count, none, type Row, seconds } from "../Row.js"
import { noFailure } from "./Killed.js"

/** How many clients there are at the same time. */
const crowd = 8

/** How many wait for their answer first: that tells how long a request takes. */
const patients = 40

/** How long those wait at most, in milliseconds. */
const patience = 20_000

/** Both rows of a request are there, or none. */
const app = HttpRouter.empty.pipe(
  HttpRouter.post(
    "/:key",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const { key } = yield* HttpRouter.params
      yield* sql`INSERT INTO hang_up VALUES (${key!}, 1)`
      yield* (yield* HttpServerRequest.HttpServerRequest).text
      yield* sql`INSERT INTO hang_up VALUES (${key!}, 2)`
      return HttpServerResponse.empty({ status: 201 })
    })
  )
)

/** Sends a request, and leaves after some milliseconds; tells whether it was answered with a 201 before. */
const client = (port: number, key: string, stays: number): Effect.Effect<boolean> =>
  Effect.async<boolean>((resume) => {
    let said = ""
    const socket = Net.connect(port, "127.0.0.1", () => {
      socket.write(`POST /${key} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc`)
    })
    const leave = () => (stays % 2 < 1 ? socket.destroy() : socket.resetAndDestroy())
    const timer = setTimeout(leave, stays)
    socket.on("data", (data) => {
      said += data.toString()
    })
    socket.on("error", () => {})
    socket.on("close", () => {
      clearTimeout(timer)
      resume(Effect.succeed(said.startsWith("HTTP/1.1 201")))
    })
  })

const median = (values: ReadonlyArray<number>): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!

/** A server on the router of a rig, until the scope closes; its port. */
const serve = (rig: Rig.Rig) =>
  Effect.gen(function* () {
    const live = HttpServer.serve(app, HttpSession.middleware()).pipe(
      Layer.provideMerge(NodeHttpServer(() => createServer(), { port: 0, host: "127.0.0.1" }))
    )
    const { address } = Context.get(
      yield* rig.use(Layer.buildWithScope(live, yield* Effect.scope)),
      HttpServer.HttpServer
    )
    return address._tag === "TcpAddress" ? address.port : 0
  })

export const row: Row = {
  name: "clients-hang-up",
  fault: "3,000 requests whose clients hang up within milliseconds, at any moment",
  mustShow: "pools whole; every request committed whole or not at all, those answered with 201 committed",
  run: (cluster, pace) =>
    Effect.gen(function* () {
      const { primary } = cluster
      yield* primary.query("CREATE TABLE IF NOT EXISTS hang_up (key text, part int, PRIMARY KEY (key, part))")
      return yield* Rig.run({ ...Rig.on(cluster, pace, "hang-ups"), isAlone: false }, (rig) =>
        Effect.gen(function* () {
          const port = yield* serve(rig)
          const answered: Array<string> = []
          let sent = 0
          /** So many requests of clients that stay so long; tells how long their answers, or their leaving, took. */
          const crowds = (requests: number, stays: () => number) =>
            Effect.forEach(
              Array.from({ length: requests }, () => `${rig.applicationName}-${sent++}`),
              (key) =>
                Effect.suspend(() => {
                  const began = performance.now()
                  return Effect.map(client(port, key, stays()), (ok) => {
                    if (ok) answered.push(key)
                    return performance.now() - began
                  })
                }),
              { concurrency: crowd }
            )
          rig.load.tally.begin("hanging up")
          const usual = median(yield* crowds(patients, () => patience))
          const stayed = answered.length
          yield* crowds(pace.requests, () => 1.5 * usual * Math.random())
          const gone = pace.requests + stayed - answered.length
          const rows = yield* primary.query<{ key: string; parts: number }>(
            "SELECT key, count(*)::int AS parts FROM hang_up WHERE key LIKE $1 || '-%' GROUP BY key",
            [rig.applicationName]
          )
          const whole = new Set(rows.filter(({ parts }) => parts === 2).map(({ key }) => key))
          return [
            {
              measured: `${count(gone)} of ${count(pace.requests)} clients gone before their answer, which took ${seconds(usual)}`,
              met: stayed === patients && gone > pace.requests / 4
            },
            none("requests committed in part", rows.length - whole.size),
            none("answered requests that were not committed", answered.filter((key) => !whole.has(key)).length),
            noFailure(rig)
          ]
        })
      )
    })
}
