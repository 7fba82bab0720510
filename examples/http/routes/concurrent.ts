import { HttpLayerRouter, HttpServerResponse } from "@effect/platform"
import { SqlClient } from "@effect/sql"
import { Data, Effect } from "effect"
import { DbRouter } from "effect-db-router"
import * as Notes from "../Notes.js"

const together = { concurrency: "unbounded", discard: true } as const

/** Fibers share the session: its transaction, and so its connection, on which their statements take turns. */
export const joined = HttpLayerRouter.route(
  "POST",
  "/concurrent/joined",
  Effect.gen(function* () {
    yield* Effect.forEach(["a", "b", "c"], Notes.add, together)
    return HttpServerResponse.empty({ status: 201 })
  })
)

/** Sessions of their own run at the same time, on connections of their own, and commit by themselves. */
export const newSessions = HttpLayerRouter.route(
  "POST",
  "/concurrent/new-sessions",
  Effect.gen(function* () {
    yield* Effect.forEach(["a", "b"], (text) => DbRouter.newSession(Notes.add(text)), together)
    return HttpServerResponse.empty({ status: 409 })
  })
)

/** They can be ended early as any other. */
export const newSessionsByHand = HttpLayerRouter.route(
  "POST",
  "/concurrent/new-sessions-by-hand",
  Effect.gen(function* () {
    const draft = (text: string) =>
      DbRouter.newSession(
        Effect.gen(function* () {
          yield* Notes.add(text)
          yield* DbRouter.commit
          yield* Notes.add(`${text}, second thoughts`)
          yield* DbRouter.rollback
        })
      )
    yield* Effect.forEach(["a", "b"], draft, together)
    return HttpServerResponse.empty({ status: 409 })
  })
)

/** Outside the session each statement commits by itself. */
export const detached = HttpLayerRouter.route(
  "POST",
  "/concurrent/detached",
  Effect.gen(function* () {
    yield* DbRouter.detached(Effect.forEach(["a", "b"], Notes.add, together))
    return HttpServerResponse.empty({ status: 409 })
  })
)

class SecondThoughts extends Data.TaggedError("SecondThoughts") {}

/** A transaction outside the session has the connection, and the COMMIT, to itself. */
export const detachedByHand = HttpLayerRouter.route(
  "POST",
  "/concurrent/detached-by-hand",
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const kept = sql.withTransaction(Effect.zipRight(Notes.add("a"), Notes.add("b")))
    const lost = sql.withTransaction(Effect.zipRight(Notes.add("c"), new SecondThoughts()))
    yield* DbRouter.detached(Effect.all([kept, Effect.ignore(lost)], together))
    return HttpServerResponse.empty({ status: 409 })
  })
)

/** One that fails takes nothing of the others with it. */
export const oneFails = HttpLayerRouter.route(
  "POST",
  "/concurrent/one-fails",
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const results = yield* Effect.all(
      [Notes.add("a"), sql`INSERT INTO note (text) VALUES (NULL)`, Notes.add("c")].map((work) =>
        DbRouter.newSession(work)
      ),
      { concurrency: "unbounded", mode: "either" }
    )
    return yield* HttpServerResponse.json(results.map(({ _tag }) => _tag))
  })
)
