import { assert, layer } from "@effect/vitest"
import { Context, Effect, Either, FiberRef, Layer, Metric, Option, Redacted } from "effect"
import { Consistency, DbRouter, type Position, RoutingContext, Telemetry, Token } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as Causal from "../support/causal.js"
import * as RouterTest from "../support/router.js"

const { insert, insertOutside, look, newId, standingStill } = Causal

const secrets = [Redacted.make("the key that all processes share"), Redacted.make("the key that they shared before.")]
const keys = Either.getOrThrow(Token.keys(secrets))

const options = { consistency: Consistency.causal(), tokens: { keys: secrets } }

/** Another process: a router with a state of its own, and the same keys. */
const other = RouterTest.router({ ...options, tokens: { keys: [...secrets].reverse() } })

/** A process that has the primary only. */
const writer = Layer.unwrapEffect(
  Effect.map(PgCluster.PgCluster, ({ primary }) =>
    DbRouter.layer({ ...options, groups: { default: [{ url: primary.url, name: "writer" }] } })
  )
)

/** Runs an effect as another process would: nothing of this flow is there. */
const elsewhere = <A, E, R>(effect: Effect.Effect<A, E, R>) => RoutingContext.fresh(Effect.provide(effect, other))

const currentToken = Effect.map(Consistency.currentToken, Option.getOrThrow)

const positionOf = (token: string): Position.Position => Either.getOrThrow(Token.decode(keys, token, 0)).position

const rejected = (reason: string) =>
  Effect.map(
    Metric.value(Metric.tagged(Telemetry.rejectedTokens, Telemetry.attributes.errorType, reason)),
    ({ count }) => count
  )

/** A new row that this flow has written, and the token of that. */
const written = Effect.gen(function* () {
  const id = yield* newId
  yield* insert(id)
  return { id, token: yield* currentToken }
})

layer(Causal.layer(options), { excludeTestServices: true, timeout: "2 minutes" })("a token", (it) => {
  it.effect(
    "makes a flow of another process see the write: from the primary while no replica has it, then from a replica",
    () =>
      Effect.gen(function* () {
        const { id, token } = yield* standingStill(
          Effect.gen(function* () {
            const { id, token } = yield* written
            yield* elsewhere(
              Effect.gen(function* () {
                const [found, engine] = yield* look(id)
                assert.deepStrictEqual([found, engine === "primary"], [false, false])
                assert.deepStrictEqual(yield* look(id).pipe(Consistency.withToken(token)), [true, "primary"])
                assert.deepStrictEqual(yield* Consistency.withToken(look(id), token), [true, "primary"])
              })
            )
            return { id, token }
          })
        )
        yield* Effect.flatMap(PgCluster.PgCluster, (cluster) => cluster.awaitReplayed)
        const [found, engine] = yield* elsewhere(Consistency.withToken(look(id), token))
        assert.deepStrictEqual([found, engine === "primary"], [true, false])
      })
  )

  it.effect("of a flow that has written in a transaction or a session says its COMMIT", () =>
    Effect.gen(function* () {
      const units = [
        (write: ReturnType<typeof insert>) => DbRouter.session(write),
        (write: ReturnType<typeof insert>) => DbRouter.newSession(write),
        (write: ReturnType<typeof insert>) => DbRouter.atomic(write)
      ]
      for (const unit of units) {
        yield* standingStill(
          Effect.gen(function* () {
            const id = yield* newId
            yield* unit(insert(id))
            const token = yield* currentToken
            assert.deepStrictEqual(yield* elsewhere(Consistency.withToken(look(id), token)), [true, "primary"])
          })
        )
      }
    })
  )

  it.effect("of a flow that has only read says what it has read: the next one does not go back in time", () =>
    Effect.gen(function* () {
      const [, second] = (yield* PgCluster.PgCluster).replicas
      yield* RouterTest.settle
      yield* standingStill(
        Effect.gen(function* () {
          const id = yield* insertOutside
          // One replica has it, the other does not.
          yield* Effect.repeat(second!.query("SELECT 1 FROM note WHERE id = $1", [id]), {
            until: (rows) => rows.length === 1
          })
          let found = false
          while (!found) {
            yield* DbRouter.reset
            found = (yield* look(id))[0]
          }
          const token = yield* currentToken
          for (let i = 0; i < 6; i++) {
            const [still, engine] = yield* elsewhere(Consistency.withToken(look(id), token))
            assert.isTrue(still)
            assert.notStrictEqual(engine, "replica1")
          }
        }),
        1
      )
    })
  )

  it.effect("is none where the flow has seen nothing, where positions are not kept, and outside a router", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* RoutingContext.fresh(Consistency.currentToken), Option.none())
      assert.deepStrictEqual(
        yield* Effect.zipRight(insert(yield* newId), Consistency.currentToken).pipe(
          Effect.provide(RouterTest.router({ consistency: Consistency.sticky() })),
          RoutingContext.fresh
        ),
        Option.none()
      )
      assert.deepStrictEqual(
        yield* Effect.mapInputContext(Consistency.currentToken, (_: Context.Context<never>) => Context.empty()),
        Option.none()
      )
    })
  )

  it.effect("is there in a process that has the primary only", () =>
    standingStill(
      Effect.gen(function* () {
        const id = yield* newId
        const token = yield* Effect.zipRight(insert(id), currentToken).pipe(
          Effect.provide(writer),
          RoutingContext.fresh
        )
        assert.deepStrictEqual(yield* elsewhere(Consistency.withToken(look(id), token)), [true, "primary"])
      })
    )
  )

  it.effect("counts inside the effect only; what that has written counts afterwards too", () =>
    standingStill(
      Effect.gen(function* () {
        const { id, token } = yield* written
        yield* elsewhere(
          Effect.gen(function* () {
            const onReplica = Effect.map(look(id), ([found]) => !found)
            const reason = Effect.flatMap(DbRouter.DbRouter, ({ explain }) => explain("SELECT id FROM note"))
            assert.match((yield* Consistency.withToken(reason, token)).reason, /^causal: no replica/)
            assert.isTrue(yield* onReplica)
            // Also when it fails.
            yield* Effect.flip(Consistency.withToken(Effect.fail("no"), token))
            assert.isTrue(yield* onReplica)
            // Nor does what it has read go back in time.
            assert.isFalse(yield* Consistency.withToken(onReplica, token))
            assert.isFalse(yield* onReplica)
            yield* DbRouter.reset
            assert.isTrue(yield* onReplica)
            const more = yield* newId
            yield* Consistency.withToken(insert(more), token)
            assert.deepStrictEqual(yield* look(more), [true, "primary"])
          })
        )
        // All fibers of a session have one flow.
        yield* elsewhere(
          DbRouter.session(
            Effect.gen(function* () {
              yield* Consistency.withToken(Effect.void, token)
              assert.deepStrictEqual(yield* look(id), [true, "primary"])
            })
          )
        )
      })
    )
  )

  it.effect("of before a promotion is read from the primary, and the flow goes on from there", () =>
    standingStill(
      Effect.gen(function* () {
        const { token } = yield* written
        const position = positionOf(token)
        const old = Token.encode(keys, { ...position, timeline: position.timeline - 1 }, { expiresAt: 2 ** 47 })
        const id = yield* insertOutside
        const next = yield* elsewhere(
          Effect.gen(function* () {
            assert.deepStrictEqual(yield* look(id), [true, "primary"])
            return yield* currentToken
          }).pipe(Consistency.withToken(old))
        )
        assert.strictEqual(positionOf(next).timeline, position.timeline)
      })
    )
  )

  it.effect("that is not to be believed moves no read: ignored and counted", () =>
    standingStill(
      Effect.gen(function* () {
        const { id, token } = yield* written
        const { lsn, system, timeline } = positionOf(token)
        const signed = (position: Position.Position, expiresAt = 2 ** 47) => Token.encode(keys, position, { expiresAt })
        const strange = Either.getOrThrow(Token.keys([Redacted.make("a key of another set of processes")]))
        const bad: ReadonlyArray<readonly [Token.Rejection, string]> = [
          ["tooLong", "A".repeat(10_000)],
          ["malformed", token.slice(0, -1)],
          ["malformed", "\0\n"],
          ["version", `B${token.slice(1)}`],
          ["signature", `${token.slice(0, -1)}${token.endsWith("A") ? "B" : "A"}`],
          ["signature", Token.encode(strange, { lsn, system, timeline }, { expiresAt: 2 ** 47 })],
          ["expired", signed({ lsn, system, timeline }, 1)],
          ["impossible", signed({ lsn: lsn + 2n ** 40n, system, timeline })],
          ["impossible", signed({ lsn, system, timeline: timeline + 1 })],
          ["impossible", signed({ lsn, system: "1", timeline })]
        ]
        yield* Effect.forEach(Array.from({ length: 20 }, () => bad).flat(), ([reason, text]) =>
          Effect.gen(function* () {
            const before = yield* rejected(reason)
            const [found, engine] = yield* Consistency.withToken(look(id), text)
            assert.deepStrictEqual([reason, found, engine === "primary"], [reason, false, false])
            assert.strictEqual(yield* rejected(reason), before + 1)
          })
        ).pipe(elsewhere)
      })
    )
  )

  it.effect("that is impossible costs the primary a short question, shared by all that come at the same time", () =>
    Effect.gen(function* () {
      const { token } = yield* written
      const position = positionOf(token)
      const impossible = Token.encode(keys, { ...position, lsn: position.lsn + 2n ** 40n }, { expiresAt: 2 ** 47 })
      const questions = Effect.map(
        Metric.value(Metric.tagged(Telemetry.positionQuestions, Telemetry.attributes.engine, "primary")),
        ({ count }) => count
      )
      yield* elsewhere(
        Effect.gen(function* () {
          const before = yield* questions
          yield* Effect.forEach(Array.from({ length: 500 }), () => Consistency.withToken(Effect.void, impossible), {
            concurrency: "unbounded"
          })
          const asked = (yield* questions) - before
          assert.isAtLeast(asked, 1)
          assert.isAtMost(asked, 3)
        })
      )
    })
  )

  it.effect("leaves a flow that forks and joins as it was", () =>
    standingStill(
      Effect.gen(function* () {
        const { id, token } = yield* written
        yield* elsewhere(
          Effect.gen(function* () {
            const inChild = yield* Effect.all([look(id), look(id)], { concurrency: 2 }).pipe(
              Consistency.withToken(token)
            )
            assert.deepStrictEqual(inChild, [
              [true, "primary"],
              [true, "primary"]
            ])
            const flow = yield* FiberRef.get(RoutingContext.flow)
            assert.isFalse(flow.isStuck)
          })
        )
      })
    )
  )
})
