import { assert, layer } from "@effect/vitest"
import { Deferred, Duration, Effect, Fiber, Redacted } from "effect"
import type { Engine } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import { Mark, Tracker } from "../../src/internal/wal/lsnTracker.js"
import type { Answer, Sampler } from "../../src/internal/wal/positionSample.js"
import * as EngineTest from "../support/engine.js"
import * as proxies from "../support/proxy.js"

EngineTest.refuseWarnings()

/** Keeps what it hears. */
class Heard implements Sampler {
  isWanted = true
  sent = 0
  readonly answers: Array<readonly [question: number, answer: Answer | Error]> = []
  private listener: () => void = () => {}

  readonly send = () => ++this.sent

  readonly heard = (question: number, answer: Answer | Error) => {
    this.answers.push([question, answer])
    this.listener()
  }

  /** The last answer. */
  readonly next = Effect.async<Answer | Error>((resume) => {
    const tell = () => resume(Effect.succeed(this.answers.at(-1)![1]))
    if (this.answers.length > 0) tell()
    else this.listener = tell
  })
}

const ask = (engine: Engine.Engine, sql: string, params: ReadonlyArray<unknown> = [], prepare = true) => {
  const heard = new Heard()
  return { heard, run: engine.query({ ...EngineTest.statement(sql, params, prepare), sampler: heard }) }
}

const isAnswer = (answer: Answer | Error): answer is Answer => !(answer instanceof Error)

layer(PgCluster.layer({ replicas: 1 }), { excludeTestServices: true, timeout: "2 minutes" })(
  "the question for a position behind a statement",
  (it) => {
    const primary = Effect.map(PgCluster.PgCluster, ({ primary }) => primary)
    const onPrimary = (options?: EngineTest.Options) => Effect.flatMap(primary, (node) => EngineTest.on(node, options))

    it.scoped("is answered after it, by primaries and standbys, prepared or not", () =>
      Effect.gen(function* () {
        const cluster = yield* PgCluster.PgCluster
        for (const maxPrepared of [256, 0]) {
          for (const node of cluster.nodes) {
            const engine = yield* EngineTest.on(node, { maxPrepared })
            const isStandby = node !== cluster.primary
            for (let i = 0; i < 4; i++) {
              const { heard, run } = ask(engine, "SELECT $1::int AS n", [i])
              const result = yield* run
              assert.deepStrictEqual("rows" in result && result.rows, [{ n: i }])
              const answer = yield* heard.next
              assert.isTrue(isAnswer(answer))
              if (isAnswer(answer)) assert.deepStrictEqual([answer.isStandby, answer.timeline], [isStandby, 1])
              assert.strictEqual(yield* EngineTest.settled(engine), 1)
            }
          }
        }
      })
    )

    it.scoped("is a position that what was written is before", () =>
      Effect.gen(function* () {
        const node = yield* primary
        const engine = yield* onPrimary()
        yield* engine.query(EngineTest.statement("CREATE TABLE IF NOT EXISTS note (id int)"))
        for (let i = 0; i < 20; i++) {
          const [before] = yield* node.query<{ lsn: string }>(
            "SELECT (pg_current_wal_insert_lsn() - '0/0')::text AS lsn"
          )
          const { heard, run } = ask(engine, "INSERT INTO note VALUES ($1)", [i])
          yield* run
          const answer = yield* heard.next
          assert.isTrue(isAnswer(answer) && answer.lsn > BigInt(before!.lsn))
        }
      })
    )

    it.scoped("is not asked by a crowd that waits for a connection, where one answer does for all", () =>
      Effect.gen(function* () {
        const engine = yield* onPrimary({ maxConnections: 1 })
        const tracker = new Tracker(() => 0)
        const marks = Array.from({ length: 5 }, () => new Mark(tracker))
        yield* Effect.forEach(
          marks,
          (mark) => {
            mark.isWorthIt = () => tracker.isDue(5)
            assert.isTrue(mark.isWanted)
            return engine.query({ ...EngineTest.statement("SELECT 1"), sampler: mark })
          },
          { concurrency: "unbounded", discard: true }
        )
        assert.deepStrictEqual([tracker.questions, marks.map((mark) => mark.isWanted)], [1, marks.map(() => false)])
        const own = new Mark(tracker)
        yield* engine.query({ ...EngineTest.statement("SELECT 1"), sampler: own })
        assert.strictEqual(tracker.questions, 2)
      })
    )

    it.scoped("changes nothing for a statement that fails, whose connection stays", () =>
      Effect.gen(function* () {
        const engine = yield* onPrimary({ maxConnections: 1 })
        for (const [sql, params] of [
          ["SELECT 1/0", []],
          ["SELECT 1 / $1::int", [0]],
          ["SELECT * FROM nowhere WHERE id = $1", [1]],
          ["nonsense", []]
        ] as const) {
          for (let i = 0; i < 3; i++) {
            const { heard, run } = ask(engine, sql, params)
            assert.match(yield* EngineTest.failure(run), /^(22012|42P01|42601)$/)
            assert.isTrue(isAnswer(yield* heard.next))
            assert.strictEqual(yield* EngineTest.value(engine, "SELECT 7"), 7)
          }
        }
      })
    )

    it.scoped("fails alone: where a role may not ask, and after DISCARD ALL has taken the prepared question away", () =>
      Effect.gen(function* () {
        const node = yield* primary
        yield* node.query("CREATE ROLE curious LOGIN PASSWORD 'x'")
        yield* node.query("REVOKE EXECUTE ON FUNCTION pg_current_wal_insert_lsn() FROM PUBLIC")
        const parts = { ...EngineTest.partsOf(node), host: node.host, port: node.port }
        const refused = yield* EngineTest.make({ ...parts, username: "curious", password: Redacted.make("x") })
        const one = ask(refused, "SELECT 1 AS n")
        yield* one.run
        assert.strictEqual((yield* one.heard.next as Effect.Effect<{ code?: string }>).code, "42501")
        yield* node.query("GRANT EXECUTE ON FUNCTION pg_current_wal_insert_lsn() TO PUBLIC")
        const engine = yield* onPrimary({ maxConnections: 1 })
        const next = Effect.suspend(() => {
          const { heard, run } = ask(engine, "SELECT 1 AS n")
          return Effect.zipRight(run, heard.next)
        })
        assert.isTrue(isAnswer(yield* next))
        yield* engine.query(EngineTest.statement("DISCARD ALL"))
        assert.isFalse(isAnswer(yield* next))
        assert.isTrue(isAnswer(yield* next))
      })
    )

    it.scoped("is over with a statement that is cancelled, and with a connection that breaks", () =>
      Effect.gen(function* () {
        const engine = yield* onPrimary({ maxConnections: 1 })
        const slow = ask(engine, "SELECT pg_sleep(30)")
        const fiber = yield* Effect.fork(slow.run)
        yield* Effect.sleep("100 millis")
        yield* Fiber.interrupt(fiber)
        yield* slow.heard.next
        assert.strictEqual(yield* EngineTest.value(engine, "SELECT 7"), 7)
        const broken = ask(engine, "SELECT pg_terminate_backend(pg_backend_pid())")
        assert.match(yield* EngineTest.failure(broken.run), /57P01|terminat/)
        assert.isFalse(isAnswer(yield* broken.heard.next))
        assert.strictEqual(yield* EngineTest.value(engine, "SELECT 7"), 7)
        assert.lengthOf(slow.heard.answers, 1)
        assert.lengthOf(broken.heard.answers, 1)
      })
    )

    it.scoped("is asked again with a statement that is run again, and the last question counts", () =>
      Effect.gen(function* () {
        const node = yield* primary
        const engine = yield* onPrimary({ maxConnections: 1 })
        yield* node.query("CREATE TABLE shape (a int)")
        const read = Effect.suspend(() => {
          const { heard, run } = ask(engine, "SELECT * FROM shape")
          return Effect.zipRight(run, Effect.as(heard.next, heard))
        })
        yield* read
        yield* read
        yield* node.query("ALTER TABLE shape ADD COLUMN b int")
        const heard = yield* read
        yield* EngineTest.settled(engine)
        assert.strictEqual(heard.sent, 2)
        assert.deepStrictEqual(
          heard.answers.map(([question]) => question),
          [1, 2]
        )
      })
    )

    it.scoped("does not hold up the statement's own answer, nor that of a COMMIT; the connection waits for it", () =>
      Effect.gen(function* () {
        const node = yield* primary
        const proxy = yield* proxies.make(node)
        const { host, port } = proxy
        const engine = yield* EngineTest.make({ ...EngineTest.partsOf(node), host, port, maxConnections: 1 })
        const commit = Effect.scoped(
          Effect.flatMap(engine.reserve, (connection) => {
            const sampler = new Heard()
            const last = { ...EngineTest.statement("COMMIT"), sampler }
            return Effect.zipRight(
              connection.query(EngineTest.statement("BEGIN")),
              Effect.as(connection.finish(last, Duration.seconds(5)), sampler)
            )
          })
        )
        const select = Effect.suspend(() => {
          const { heard, run } = ask(engine, "SELECT 1 AS n")
          return Effect.as(run, heard)
        })
        yield* Effect.flatMap(select, (heard) => heard.next)
        yield* EngineTest.settled(engine)
        for (const statement of [select, commit]) {
          const held = yield* Deferred.make<void>()
          // What comes after the last statement has become ready is the answer to the question.
          let left = statement === commit ? 2 : 1
          proxy.onMessage = (type) => {
            if (left === 0) return Deferred.await(held)
            if (type === "Z") left--
            return undefined
          }
          const heard = yield* statement
          assert.deepStrictEqual([heard.sent, heard.answers.length, engine.poolStatus.idle], [1, 0, 0])
          yield* Deferred.succeed(held, undefined)
          assert.isTrue(isAnswer(yield* heard.next))
          assert.strictEqual(yield* EngineTest.settled(engine), 1)
          proxy.onMessage = () => undefined
        }
      })
    )
  }
)
