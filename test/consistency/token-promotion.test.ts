import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Either, Layer, Option, Redacted } from "effect"
import { Consistency, DbRouter, RoutingContext, Token } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import { eventually } from "../support/http.js"
import * as RouterTest from "../support/router.js"

const secrets = [Redacted.make("the key that all processes share")]
const keys = Either.getOrThrow(Token.keys(secrets))

const options = {
  consistency: Consistency.causal(),
  tokens: { keys: secrets },
  health: { interval: "100 millis" }
} as const

const insert = (id: number) => Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO note (id) VALUES (${id})`)

/** Whether a read finds a row, and where. */
const look = (id: number) =>
  Effect.map(
    RouterTest.traced(Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT id FROM note WHERE id = ${id}`)),
    ([rows, statements]) => [rows.length === 1, statements.at(-1)!.engine] as const
  )

const timelineOf = (token: string) => Either.getOrThrow(Token.decode(keys, token, 0)).position.timeline

const currentToken = Effect.map(Consistency.currentToken, Option.getOrThrow)

const TestLayer = Layer.provideMerge(RouterTest.router(options), PgCluster.layer({ replicas: 2 }))

layer(TestLayer, { excludeTestServices: true, timeout: "2 minutes" })("a promotion", (it) => {
  it.scoped(
    "sends what has a token from before it to the new primary, and what has one from after it to replicas",
    () =>
      Effect.gen(function* () {
        const { awaitReplayed, primary, replicas } = yield* PgCluster.PgCluster
        const [first, second] = replicas as [PgCluster.Node, PgCluster.Node]
        const { status } = yield* DbRouter.DbRouter
        yield* Effect.flatMap(SqlClient.SqlClient, (sql) => sql`CREATE TABLE note (id int PRIMARY KEY)`)
        yield* insert(1)
        const before = yield* currentToken
        yield* awaitReplayed
        yield* primary.kill
        yield* first.promote
        yield* second.follow(first)
        yield* eventually(
          Effect.map(status, (engines) =>
            engines.some(({ eligible, name, role }) => name === first.name && role === "primary" && eligible)
          ),
          "the promoted server takes the writes"
        )
        yield* eventually(
          Effect.map(status, (engines) => engines.some(({ name, state }) => name === second.name && state === "up")),
          "the other replica follows it"
        )
        const next = yield* RoutingContext.fresh(
          Effect.gen(function* () {
            assert.deepStrictEqual(yield* look(1), [true, first.name])
            return yield* currentToken
          }).pipe(Consistency.withToken(before))
        )
        assert.isAbove(timelineOf(next), timelineOf(before))
        yield* eventually(
          Effect.map(RoutingContext.fresh(Consistency.withToken(look(1), next)), ([found, engine]) => {
            assert.isTrue(found)
            return engine === second.name
          }),
          "a replica of the new primary answers"
        )
      })
  )
})
