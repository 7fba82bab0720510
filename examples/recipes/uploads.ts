/** Uploads that stall: the body is read before the first statement, and a limit holds for what does not. */
// #region usage
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { SqlClient } from "@effect/sql"
import { Effect } from "effect"
import { HttpSession } from "effect-db-router"

const save = (customer: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO invoice (customer, total) VALUES (${customer}, 1)`)

const created = HttpServerResponse.empty({ status: 201 })

const app = HttpRouter.empty.pipe(
  // Nothing is open while the body comes: a session begins its transaction with its first statement.
  HttpRouter.post(
    "/read-first",
    Effect.gen(function* () {
      yield* save(yield* (yield* HttpServerRequest.HttpServerRequest).text)
      return created
    })
  ),
  // Here the transaction waits for the body, and holds its connection.
  HttpRouter.post(
    "/write-first",
    Effect.gen(function* () {
      yield* save("Ada")
      yield* save(yield* (yield* HttpServerRequest.HttpServerRequest).text)
      return created
    })
  )
)

// A request that waits so long for a byte of its body with a connection is ended: sooner than others give up waiting for one.
const inSession = HttpSession.middleware({ bodyTimeout: "2 seconds" })

// #endregion usage

import { connect, type Socket } from "node:net"
import { HttpServer } from "@effect/platform"
import { run } from "../support/cluster.js"
import { serving } from "../support/http.js"
import { report } from "../support/report.js"

/** More than the primary's pool has connections. */
const count = 12

/** Clients that send the head of a request and the beginning of its body, and then nothing more. */
const stalled = (address: string, path: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const { hostname, port } = new URL(address)
      return Array.from({ length: count }, (): Socket => {
        const socket = connect(Number(port), hostname)
        socket.on("error", () => {})
        socket.write(`POST ${path} HTTP/1.1\r\nHost: ${hostname}\r\nContent-Length: 1000\r\n\r\nA`)
        return socket
      })
    }),
    (sockets) => Effect.sync(() => sockets.forEach((socket) => void socket.destroy()))
  )

await run(
  serving(HttpServer.serve(app, inSession), (send, address) =>
    Effect.gen(function* () {
      for (const path of ["/read-first", "/write-first"]) {
        const { status, took } = yield* Effect.scoped(
          Effect.gen(function* () {
            yield* stalled(address, path)
            yield* Effect.sleep("500 millis")
            const began = performance.now()
            const { status } = yield* send("POST", "/read-first", { body: "Grace" })
            return { status, took: performance.now() - began }
          })
        )
        const limit = path === "/read-first" ? 500 : 4_000
        yield* report(`A write while ${count} uploads stall in ${path}`, { status }, status === 201 && took < limit)
      }
    })
  )
)
