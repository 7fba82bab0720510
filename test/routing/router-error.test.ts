import { SqlError } from "@effect/sql/SqlError"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Option, Schema } from "effect"
import * as RouterError from "effect-db-router/RouterError"

const boom = new Error("connection reset")

/** One error of each reason, with the words that its message must have for the reader of a log. */
const errors: ReadonlyArray<
  readonly [reason: RouterError.Reason, error: RouterError.RouterError, says: ReadonlyArray<string>]
> = [
  [
    "UnknownGroup",
    RouterError.unknownGroup("analytcs", ["default", "analytics"]),
    ['"analytcs"', '"default", "analytics"']
  ],
  [
    "UnknownEngine",
    RouterError.unknownEngine("read-9", ["default-1", "read-1"]),
    ['"read-9"', '"default-1", "read-1"']
  ],
  [
    "NoEngineAvailable",
    RouterError.noEngineAvailable("read", { why: "read-1: refused", cause: boom, onNoReplica: "fail" }),
    ['"read"', "read-1: refused", "onNoReplica"]
  ],
  ["NoEngineAvailable", RouterError.noEngineAvailable("default"), ['"default"', "are not drained"]],
  ["SessionClosed", RouterError.sessionClosed(), ["a statement", "DbRouter.detached"]],
  ["SessionClosed", RouterError.sessionClosed("commit"), ["commit", "DbRouter.detached"]],
  [
    "ReadOnlyViolation",
    RouterError.readOnlyViolation("calls nextval", { group: "read" }),
    ["calls nextval", "readOnly"]
  ],
  [
    "PartialCommit",
    RouterError.partialCommit({
      committed: ["default"],
      rolledBack: ["analytics", "audit"],
      unknown: ["log"],
      cause: boom
    }),
    ['committed: "default"', 'rolled back: "analytics", "audit"', 'unknown: "log"']
  ],
  [
    "PartialCommit",
    RouterError.partialCommit({ committed: [], rolledBack: ["a"] }),
    ["committed: none", 'rolled back: "a")']
  ],
  ["CommitRolledBack", RouterError.commitRolledBack({ engine: "main" }), ["ROLLBACK", "savepoint"]],
  ["ConnectionLost", RouterError.connectionLost({ engine: "main", cause: boom }), ['to "main"', "again"]],
  ["OutcomeUnknown", RouterError.outcomeUnknown("commit", { engine: "main" }), ["COMMIT", 'to "main"', "not retried"]],
  ["OutcomeUnknown", RouterError.outcomeUnknown("odd answer", { engine: "main" }), ["neither COMMIT", 'to "main"']],
  ["OutcomeUnknown", RouterError.outcomeUnknown("statement"), ["write", "not retried"]],
  ["SettingsMissing", RouterError.settingsMissing("analytics", "default"), ['"analytics"', '"default"', '"settings"']],
  ["SettingsMissing", RouterError.settingsEnded(), ["ends the transaction", "settings"]],
  ["TransactionActive", RouterError.transactionActive("default"), ['"default"', '"savepoint"']],
  ["TransactionActive", RouterError.transactionActive(), ["already active", '"savepoint"']],
  ["TransactionActive", RouterError.sessionActive(), ["inside another session", "newSession"]],
  ["RouterClosed", RouterError.routerClosed(), ["closed", "layer"]],
  ["ListenerBehind", RouterError.listenerBehind("news", 7), ['"news"', "7 notifications", "maxPendingNotifications"]],
  ["CopyUnsupported", RouterError.copyUnsupported(), ["COPY FROM STDIN", "not sent", "unnest"]],
  ["PoolBusy", RouterError.poolBusy("main", 10, 5_000), ['All 10 connections to "main"', "5000 ms", "maxConnections"]]
]

describe("a RouterError", () => {
  it("exists for every reason", () => {
    const covered = new Set(errors.map(([reason]) => reason))
    assert.deepStrictEqual([...covered].sort(), [...RouterError.Reason.literals].sort())
  })

  for (const [reason, error, says] of errors) {
    describe(`${reason}: ${error.description}`, () => {
      it("says what happened and what to do", () => {
        assert.strictEqual(error.reason, reason)
        assert.strictEqual(error._tag, "RouterError")
        for (const part of says) assert.include(error.message, part)
        assert.include(error.message, error.remedy)
        assert.notMatch(error.message, /undefined|\.\.|\[object/)
        assert.include(Cause.pretty(Cause.fail(error)), error.message)
      })

      it("goes through the SqlClient interface and back", () => {
        const sqlError = RouterError.toSqlError(error)
        assert.instanceOf(sqlError, SqlError)
        assert.strictEqual(sqlError.cause, error)
        assert.strictEqual(sqlError.message, error.message)
        assert.deepStrictEqual(RouterError.fromSqlError(sqlError), Option.some(error))
        assert.deepStrictEqual(RouterError.reasonOf(sqlError), Option.some(reason))
        assert.deepStrictEqual(RouterError.reasonOf(error), Option.some(reason))
      })

      it("goes over a wire and back", () => {
        const encoded = Schema.encodeSync(Schema.parseJson(RouterError.RouterError))(error)
        const decoded = Schema.decodeSync(Schema.parseJson(RouterError.RouterError))(encoded)
        assert.isTrue(RouterError.isRouterError(decoded))
        assert.strictEqual(decoded.message, error.message)
        assert.strictEqual(decoded.code, error.code)
      })
    })
  }

  it("has a code of its own for each reason, which does not change", () => {
    assert.deepStrictEqual(RouterError.codes, {
      UnknownGroup: "DB_ROUTER_UNKNOWN_GROUP",
      UnknownEngine: "DB_ROUTER_UNKNOWN_ENGINE",
      NoEngineAvailable: "DB_ROUTER_NO_ENGINE_AVAILABLE",
      SessionClosed: "DB_ROUTER_SESSION_CLOSED",
      ReadOnlyViolation: "DB_ROUTER_READ_ONLY_VIOLATION",
      PartialCommit: "DB_ROUTER_PARTIAL_COMMIT",
      CommitRolledBack: "DB_ROUTER_COMMIT_ROLLED_BACK",
      ConnectionLost: "DB_ROUTER_CONNECTION_LOST",
      OutcomeUnknown: "DB_ROUTER_OUTCOME_UNKNOWN",
      SettingsMissing: "DB_ROUTER_SETTINGS_MISSING",
      TransactionActive: "DB_ROUTER_TRANSACTION_ACTIVE",
      RouterClosed: "DB_ROUTER_CLOSED",
      PoolBusy: "DB_ROUTER_POOL_BUSY",
      ListenerBehind: "DB_ROUTER_LISTENER_BEHIND",
      CopyUnsupported: "DB_ROUTER_COPY_UNSUPPORTED"
    })
    for (const [reason, error] of errors) assert.strictEqual(error.code, RouterError.codes[reason])
  })

  it("carries what a program needs to decide", () => {
    const partial = RouterError.partialCommit({ committed: ["a"], rolledBack: ["b"], cause: boom })
    assert.deepStrictEqual([partial.committed, partial.rolledBack, partial.unknown], [["a"], ["b"], []])
    assert.strictEqual(partial.cause, boom)
    const unknown = RouterError.unknownGroup("x", ["default"])
    assert.deepStrictEqual([unknown.group, unknown.groups], ["x", ["default"]])
    const lost = RouterError.connectionLost({ group: "default", engine: "main", cause: boom })
    assert.deepStrictEqual([lost.group, lost.engine, lost.cause], ["default", "main", boom])
  })

  it.effect("is caught by its reason behind a SqlError", () =>
    Effect.gen(function* () {
      const query: Effect.Effect<ReadonlyArray<number>, SqlError> = Effect.fail(
        RouterError.toSqlError(RouterError.noEngineAvailable("read"))
      )
      const orEmpty = Effect.catchTag(query, "SqlError", (error) =>
        Option.contains(RouterError.reasonOf(error), "NoEngineAvailable") ? Effect.succeed([]) : Effect.fail(error)
      )
      assert.deepStrictEqual(yield* orEmpty, [])
    })
  )

  it.effect("shows in the printed cause of a failed program", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(Effect.fail(RouterError.toSqlError(RouterError.sessionClosed())))
      assert(Exit.isFailure(exit))
      assert.include(Cause.pretty(exit.cause, { renderErrorCause: true }), "DbRouter.detached")
    })
  )
})

describe("finding a RouterError in another error", () => {
  it("follows the chain of causes, also a circular one", () => {
    const error = RouterError.sessionClosed()
    const wrapped = new Error("outer", {
      cause: new SqlError({ cause: RouterError.toSqlError(error), message: "again" })
    })
    assert.deepStrictEqual(RouterError.fromSqlError(wrapped), Option.some(error))
    const circle = new Error("circle")
    circle.cause = circle
    assert.deepStrictEqual(RouterError.fromSqlError(circle), Option.none())
  })

  it("finds none where there is none", () => {
    for (const other of [new SqlError({ cause: boom, message: "no" }), boom, undefined, null, "RouterError", 7, {}]) {
      assert.deepStrictEqual(RouterError.fromSqlError(other), Option.none())
      assert.deepStrictEqual(RouterError.reasonOf(other), Option.none())
      assert.isFalse(RouterError.isRouterError(other))
    }
  })
})

describe("a RouterConfigError", () => {
  const given = { field: "groups.read[1].weight", value: "-1", remedy: "It must be positive" }

  it("names field, value and remedy, and the variable if there is one", () => {
    const error = new RouterError.RouterConfigError(given)
    assert.strictEqual(error.message, "Invalid groups.read[1].weight: -1. It must be positive")
    assert.strictEqual(error.code, "DB_ROUTER_CONFIG")
    assert.include(
      new RouterError.RouterConfigError({ ...given, variable: "DATABASE_REPLICA_URLS[1]" }).message,
      "DATABASE_REPLICA_URLS[1] (groups.read[1].weight)"
    )
  })

  it.effect("is caught by its tag", () =>
    Effect.gen(function* () {
      const caught = yield* Effect.fail(new RouterError.RouterConfigError(given)).pipe(
        Effect.catchTag("RouterConfigError", (error) => Effect.succeed(error.field))
      )
      assert.strictEqual(caught, given.field)
    })
  )
})
