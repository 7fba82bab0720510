/** Clients of an HTTP server that hang up at any moment of their request. */
import { createServer } from "node:http"
import * as Net from "node:net"
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { layer as NodeHttpServer } from "@effect/platform-node/NodeHttpServer"
import { SqlClient } from "@effect/sql"
import { Context, Effect, Layer } from "effect"
import { HttpSession } from "effect-db-router"
import * as Rig from "../Rig.js"
import { count, none, type Row } from "../Row.js"
import { noFailure } from "./Killed.js"

/** The longest that a client stays, in milliseconds: about what a request takes. */
const patience = 12

/** How many clients there are at the same time. */
const crowd = 8

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
    const timer = setTimeout(() => (stays % 2 < 1 ? socket.destroy() : socket.resetAndDestroy()), stays)
    socket.on("data", (data) => {
      said += data.toString()
    })
    socket.on("error", () => {})
    socket.on("close", () => {
      clearTimeout(timer)
      resume(Effect.succeed(said.startsWith("HTTP/1.1 201")))
    })
  })

export const row: Row = {
  name: "clients-hang-up",
  fault: "clients of an HTTP server that hang up within 12 ms, at any moment of their request",
  mustShow: "every request committed whole or not at all, those answered with 201 committed; pools whole",
  run: (cluster, pace) =>
    Effect.gen(function* () {
      const { primary } = cluster
      yield* primary.query("CREATE TABLE IF NOT EXISTS hang_up (key text, part int, PRIMARY KEY (key, part))")
      return yield* Rig.run({ ...Rig.on(cluster, pace, "hang-ups"), isAlone: false }, (rig) =>
        Effect.gen(function* () {
          const live = HttpServer.serve(app, HttpSession.middleware()).pipe(
            Layer.provideMerge(NodeHttpServer(() => createServer(), { port: 0, host: "127.0.0.1" }))
          )
          const server = yield* Effect.flatMap(Effect.scope, (scope) =>
            rig.use(Effect.map(Layer.buildWithScope(live, scope), Context.get(HttpServer.HttpServer)))
          )
          const { address } = server
          const port = address._tag === "TcpAddress" ? address.port : 0
          const answered: Array<string> = []
          let sent = 0
          rig.load.tally.begin("hanging up")
          const end = performance.now() + pace.fault
          const one = Effect.suspend(() => {
            const key = `${rig.applicationName}-${sent++}`
            return Effect.map(client(port, key, patience * Math.random()), (ok) => {
              if (ok) answered.push(key)
            })
          })
          const many = Effect.repeat(one, { while: () => performance.now() < end })
          yield* Effect.replicateEffect(many, crowd, { concurrency: "unbounded", discard: true })
          // Requests whose clients are gone end by themselves.
          yield* Effect.sleep("1 second")
          const rows = yield* primary.query<{ key: string; parts: number }>(
            "SELECT key, count(*)::int AS parts FROM hang_up WHERE key LIKE $1 || '-%' GROUP BY key",
            [rig.applicationName]
          )
          const whole = new Set(rows.filter(({ parts }) => parts === 2).map(({ key }) => key))
          return [
            { measured: `${count(sent)} requests, ${count(answered.length)} answered`, met: sent > crowd },
            none("requests committed in part", rows.length - whole.size),
            none("answered requests that were not committed", answered.filter((key) => !whole.has(key)).length),
            noFailure(rig)
          ]
        })
      )
    })
}
