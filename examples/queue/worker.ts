/**
 * The worker, a process of its own: `main.ts` starts it and sends it jobs. It has the router's environment variables, and so
 * the keys that tokens are signed with.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Effect, Option, Schema, Stream } from "effect"
import { Consistency, DbRouter, DbRouterLive } from "effect-db-router"
import { Done, find, Job } from "./Orders.js"

// #region worker
/** Sees the order that it is about, from whichever replica has it. */
const handle = ({ order, token }: Job) =>
  Option.match(token, {
    onNone: () => find(order),
    onSome: (token) => Consistency.withToken(find(order), token)
  })
// #endregion worker

// The channel to the parent process stands in for a queue.
const messages = Stream.async<unknown>((emit) => {
  process.on("message", (message) => void emit.single(message))
  process.on("disconnect", () => void emit.end())
})

const answer = (done: Done) => Effect.sync(() => process.send?.(Schema.encodeSync(Done)(done)))

messages.pipe(
  Stream.mapEffect(Schema.decodeUnknown(Job)),
  // The loop never ends: what one job has seen is nothing that the next has to see.
  Stream.mapEffect((job) => Effect.zipRight(DbRouter.reset, handle(job))),
  Stream.runForEach(answer),
  Effect.provide(DbRouterLive),
  NodeRuntime.runMain
)
