import type { SqlError } from "@effect/sql"
import { Effect, type Exit, pipe, type Scope } from "effect"
import { DbRouter, type RouterError, Session } from "effect-db-router"
import { describe, expectTypeOf, it } from "vitest"
import { type A, check, type E, effect, type R } from "../support/typeTest.js"

type Router = DbRouter.DbRouter

/** What an effect is inside a session: it may fail to commit, and needs the router. */
type InSession = Effect.Effect<A, E | SqlError.SqlError, R | Router>

describe("sessions", () => {
  it(
    "add the router to what an effect needs, and SqlError to how it fails, data first and data last",
    check(() => {
      for (const session of [DbRouter.session, DbRouter.newSession, Session.session, Session.newSession]) {
        expectTypeOf(session(effect)).toEqualTypeOf<InSession>()
        expectTypeOf(session(effect, { isolation: "serializable", deferrable: true })).toEqualTypeOf<InSession>()
        expectTypeOf(effect.pipe(session())).toEqualTypeOf<InSession>()
        expectTypeOf(effect.pipe(session({ readOnly: true, settings: { "app.user": "1" } }))).toEqualTypeOf<InSession>()
      }
      expectTypeOf(DbRouter.readOnly(effect)).toEqualTypeOf<InSession>()
      expectTypeOf(effect.pipe(DbRouter.readOnly)).toEqualTypeOf<InSession>()
    })
  )

  it(
    "take an atomic block, data first and data last",
    check(() => {
      expectTypeOf(DbRouter.atomic(effect)).toEqualTypeOf<InSession>()
      expectTypeOf(DbRouter.atomic(effect, { current: "savepoint" })).toEqualTypeOf<InSession>()
      expectTypeOf(effect.pipe(DbRouter.atomic())).toEqualTypeOf<InSession>()
      expectTypeOf(effect.pipe(DbRouter.atomic({ current: "fail" }))).toEqualTypeOf<InSession>()
      expectTypeOf<Session.Current>().toEqualTypeOf<"commit" | "rollback" | "append" | "savepoint" | "fail">()
    })
  )

  it(
    "do not add the same requirement or error twice",
    check(() => {
      const twice = pipe(effect, DbRouter.atomic(), DbRouter.session(), DbRouter.newSession())
      expectTypeOf(twice).toEqualTypeOf<InSession>()
    })
  )

  it(
    "leave an effect that is outside of them as it is",
    check(() => {
      expectTypeOf(DbRouter.detached(effect)).toEqualTypeOf<Effect.Effect<A, E, R>>()
      expectTypeOf(DbRouter.isInSession).toEqualTypeOf<Effect.Effect<boolean>>()
    })
  )

  it(
    "end early, all groups or one of them",
    check(() => {
      for (const end of [DbRouter.commit, DbRouter.rollback, DbRouter.close]) {
        expectTypeOf(end).toExtend<Effect.Effect<void, SqlError.SqlError, Router>>()
        expectTypeOf(end("analytics")).toEqualTypeOf<Effect.Effect<void, SqlError.SqlError, Router>>()
        expectTypeOf(Effect.asVoid(end)).toEqualTypeOf<Effect.Effect<void, SqlError.SqlError, Router>>()
      }
    })
  )

  it(
    "have hooks: the one before the COMMIT can fail it, the ones after the end cannot fail",
    check(() => {
      expectTypeOf(DbRouter.beforeCommit(effect)).toEqualTypeOf<Effect.Effect<void, SqlError.SqlError, R | Router>>()
      expectTypeOf(DbRouter.afterCommit(effect)).toEqualTypeOf<Effect.Effect<void, never, R | Router>>()
      expectTypeOf(DbRouter.afterRollback(effect)).toEqualTypeOf<Effect.Effect<void, never, R | Router>>()
    })
  )

  it(
    "are a resource",
    check(() => {
      expectTypeOf(Session.scoped({ reads: "snapshot" })).toEqualTypeOf<
        Effect.Effect<Session.Session, SqlError.SqlError, Scope.Scope | Router>
      >()
      const session = {} as Session.Session
      expectTypeOf(session.run(effect)).toEqualTypeOf<Effect.Effect<A, E, R>>()
      expectTypeOf(session.commit).toEqualTypeOf<Effect.Effect<void, SqlError.SqlError>>()
      expectTypeOf(session.rollback).toEqualTypeOf<Effect.Effect<void, SqlError.SqlError>>()
      const exit = Effect.exit(DbRouter.session(effect))
      expectTypeOf(exit).toEqualTypeOf<Effect.Effect<Exit.Exit<A, E | SqlError.SqlError>, never, R | Router>>()
    })
  )

  it(
    "refuse options that there are not",
    check(() => {
      // @ts-expect-error no such level
      DbRouter.session({ isolation: "snapshot" })
      // @ts-expect-error settings are text
      DbRouter.session(effect, { settings: { "app.user": 1 } })
      // @ts-expect-error misspelt
      DbRouter.newSession({ readonly: true })
      // @ts-expect-error no such choice
      DbRouter.atomic(effect, { current: "join" })
      // @ts-expect-error a read-only session has its options
      DbRouter.readOnly(effect, { isolation: "serializable" })
      // @ts-expect-error a group has a name
      DbRouter.commit(1)
    })
  )

  it(
    "name their errors",
    check(() => {
      expectTypeOf<RouterError.KnownOutcome>().toEqualTypeOf<"not done" | "unknown" | "partly done">()
    })
  )
})
