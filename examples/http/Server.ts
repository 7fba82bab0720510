/**
 * The routes, one for each flow, every request in a session.
 */
import { HttpLayerRouter } from "@effect/platform"
import { Layer } from "effect"
import { HttpSession } from "effect-db-router"
import { afterCommit, backgroundJob } from "./routes/afterwards.js"
import { atomic, atomicInTransaction } from "./routes/atomic.js"
import { detached, detachedByHand, joined, newSessions, newSessionsByHand, oneFails } from "./routes/concurrent.js"
import { earlyClose, earlyCommit, earlyRollback } from "./routes/early.js"
import { rollbackByException, rollbackByStatus } from "./routes/rollback.js"
import { readYourWrites, simple } from "./routes/simple.js"

export const routes = [
  simple,
  readYourWrites,
  rollbackByStatus,
  rollbackByException,
  earlyCommit,
  earlyRollback,
  earlyClose,
  atomic,
  atomicInTransaction,
  joined,
  newSessions,
  newSessionsByHand,
  detached,
  detachedByHand,
  oneFails,
  afterCommit,
  backgroundJob
] as const

/** Needs a router, and an `HttpServer` to listen. */
export const Server = HttpLayerRouter.serve(
  HttpLayerRouter.addAll(routes).pipe(Layer.provide(HttpLayerRouter.middleware(HttpSession.make()).layer)),
  { disableLogger: true, disableListenLog: true }
)
