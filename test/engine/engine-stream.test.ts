import { SqlError } from "@effect/sql"
import { assert, describe, layer } from "@effect/vitest"
import { Chunk, Deferred, Effect, Fiber, Random, Redacted, Stream } from "effect"
import { PgCluster } from "effect-db-router/testing"
import * as engines from "../support/engine.js"
import * as proxies from "../support/proxy.js"

type Engine = Effect.Effect.Success<ReturnType<typeof engines.make>>

const primary = Effect.map(PgCluster.PgCluster, (cluster) => cluster.primary)

const one = Effect.flatMap(primary, (node) => engines.on(node, { maxConnections: 1 }))

const throughProxy = Effect.gen(function* () {
  const node = yield* primary
  const proxy = yield* proxies.make(node)
  const { host, port } = proxy
  const on = yield* engines.make({ ...engines.partsOf(node), host, port, maxConnections: 1 })
  return { on, proxy }
})

/** Nothing runs any more, and the connection is the one that it was. */
const keepsItsConnection = <A, E>(on: Engine, use: Effect.Effect<A, E>) =>
  Effect.gen(function* () {
    const before = yield* engines.value(on, "select pg_backend_pid()")
    const result = yield* use
    assert.strictEqual(yield* engines.value(on, "select pg_backend_pid()"), before)
    assert.strictEqual(yield* engines.settled(on), 1)
    const sessions = yield* engines.activity(yield* primary)
    assert.deepStrictEqual(
      sessions.filter(({ state }) => state !== "idle"),
      []
    )
    return result
  })

const numbers = (count: number) => `select g as n from generate_series(1, ${count}) g`

engines.refuseWarnings()

layer(PgCluster.layer({ replicas: 0 }), { excludeTestServices: true })("the rows of a stream", (it) => {
  it.scoped("come in order and all, whatever their number is", () =>
    Effect.gen(function* () {
      const on = yield* one
      for (const count of [0, 1, 127, 128, 129, 256, 1_000]) {
        const rows = yield* engines.collect(on, numbers(count))
        assert.deepStrictEqual(
          rows,
          Array.from({ length: count }, (_, i) => ({ n: i + 1 }))
        )
      }
      assert.deepStrictEqual(yield* engines.collect(on, "select $1::int as a, $2::text as b", [1, null]), [
        { a: 1, b: null }
      ])
      assert.deepStrictEqual(yield* engines.collect(on, "show work_mem"), [{ work_mem: "4MB" }])
      assert.deepStrictEqual(yield* engines.collect(on, ""), [])
      assert.strictEqual(yield* engines.settled(on), 1)
    })
  )

  it.scoped("are fetched as they are consumed", () =>
    Effect.gen(function* () {
      const on = yield* one
      yield* on.query(engines.statement("create sequence made"))
      const rows = on.stream("select nextval('made') from generate_series(1, 100000)", [])
      yield* keepsItsConnection(on, Stream.runDrain(Stream.take(rows, 1)))
      assert.isBelow(Number(yield* engines.value(on, "select last_value::int from made")), 1_000)
    })
  )

  it.scoped("count as work of the engine until it ends", () =>
    Effect.gen(function* () {
      const on = yield* one
      const seen = yield* on.stream(numbers(300), []).pipe(
        Stream.mapChunks(() => Chunk.of([on.inFlight, on.poolStatus.idle])),
        Stream.runCollect
      )
      assert.deepStrictEqual(Chunk.toReadonlyArray(seen), [
        [1, 0],
        [1, 0],
        [1, 0]
      ])
      assert.strictEqual(yield* engines.settled(on), 1)
    })
  )

  it.scoped("of a statement that writes are there when its commit has succeeded", () =>
    Effect.gen(function* () {
      const on = yield* one
      yield* on.query(
        engines.statement(
          "create table parent (id int primary key); create table child (id int references parent deferrable initially deferred)"
        )
      )
      const good = "insert into parent select generate_series(1, 200) returning id"
      assert.strictEqual((yield* engines.collect(on, good)).length, 200)
      const bad = engines.collect(on, "insert into child values (1), (1000) returning id")
      assert.strictEqual(yield* keepsItsConnection(on, engines.failure(bad)), "23503")
      assert.strictEqual(yield* engines.value(on, "select count(*)::int from child"), 0)
      // Ended early it is committed whole, as its statement was carried out.
      const early = on.stream("insert into child select generate_series(1, 200) returning id", [])
      yield* keepsItsConnection(on, Stream.runDrain(Stream.take(early, 1)))
      assert.strictEqual(yield* engines.value(on, "select count(*)::int from child"), 200)
    })
  )

  describe("leave the connection as it was after", () => {
    const ways = {
      "an error before the first row": ["select no_such_column", "42703"],
      "an error in the middle of a batch": ["select 1 / (50 - g) from generate_series(1, 1000) g", "22012"],
      "an error in a later batch": ["select 1 / (500 - g) from generate_series(1, 1000) g", "22012"],
      "a text that is not SQL": ["this is not SQL", "42601"],
      "several statements": ["select 1; select 2", "42601"],
      "a copy that wants to read from it": ["copy (select 1) from stdin", "DB_ROUTER_COPY_UNSUPPORTED"]
    } as const
    for (const [name, [sql, state]] of Object.entries(ways)) {
      it.scoped(name, () =>
        Effect.gen(function* () {
          const on = yield* one
          assert.strictEqual(yield* keepsItsConnection(on, engines.failure(engines.collect(on, sql))), state)
        })
      )
    }

    it.scoped("COPY, either way", () =>
      Effect.gen(function* () {
        const on = yield* one
        yield* on.query(engines.statement("create table copied (id int)"))
        for (const copy of ["copy copied from stdin", "copy (values (1), (2)) to stdout"]) {
          const streamed = engines.failure(engines.collect(on, copy))
          assert.strictEqual(yield* keepsItsConnection(on, streamed), "DB_ROUTER_COPY_UNSUPPORTED")
          const asked = engines.failure(on.query(engines.statement(copy)))
          assert.strictEqual(yield* keepsItsConnection(on, asked), "DB_ROUTER_COPY_UNSUPPORTED")
        }
      })
    )

    it.scoped("an end before its first row was read", () =>
      Effect.gen(function* () {
        const on = yield* one
        for (const sql of [numbers(1_000), "select pg_sleep(60)", "select no_such_column"]) {
          yield* keepsItsConnection(on, Effect.scoped(Stream.toPull(on.stream(sql, []))))
          yield* keepsItsConnection(
            on,
            Effect.timeout(Stream.runDrain(on.stream(sql, [])), "1 millis").pipe(Effect.exit)
          )
        }
      })
    )

    it.scoped("an interruption while the server works on a batch", () =>
      Effect.gen(function* () {
        const on = yield* one
        const slow = "select pg_sleep(case when g = 200 then 60 else 0 end) from generate_series(1, 1000) g"
        let count = 0
        const rows = Stream.tap(on.stream(slow, []), () => Effect.sync(() => count++))
        yield* keepsItsConnection(on, Effect.timeoutOption(Stream.runDrain(rows), "100 millis"))
        assert.strictEqual(count, 128)
      })
    )

    // The server is done with the batch, so a cancel comes too late to end anything.
    it.scoped("an interruption while a batch is on its way", () =>
      Effect.gen(function* () {
        const { on, proxy } = yield* throughProxy
        const held = yield* Deferred.make<void>()
        const arrived = yield* Deferred.make<void>()
        proxy.onMessage = (type) =>
          type === "s" ? Effect.zipRight(Deferred.succeed(arrived, undefined), Deferred.await(held)) : undefined
        yield* keepsItsConnection(
          on,
          Effect.gen(function* () {
            const fiber = yield* Effect.fork(Stream.runDrain(on.stream(numbers(1_000), [])))
            yield* Deferred.await(arrived)
            const interruption = yield* Effect.fork(Fiber.interrupt(fiber))
            yield* engines.eventually(Effect.sync(proxy.cancels), (cancels) => cancels >= 1)
            yield* Deferred.succeed(held, undefined)
            yield* Fiber.join(interruption)
          })
        )
      })
    )

    it.scoped("an interruption between two batches", () =>
      Effect.gen(function* () {
        const { on, proxy } = yield* throughProxy
        const first = yield* Deferred.make<void>()
        const rows = Stream.mapChunksEffect(on.stream(numbers(1_000), []), () =>
          Effect.zipRight(Deferred.succeed(first, undefined), Effect.never)
        )
        yield* keepsItsConnection(
          on,
          Effect.gen(function* () {
            const fiber = yield* Effect.fork(Stream.runDrain(rows))
            yield* Deferred.await(first)
            yield* Fiber.interrupt(fiber)
          })
        )
        assert.strictEqual(proxy.cancels(), 0)
      })
    )

    it.scoped("an end while an earlier error of the connection is not over", () =>
      Effect.gen(function* () {
        const { on, proxy } = yield* throughProxy
        yield* keepsItsConnection(
          on,
          Effect.scoped(
            Effect.gen(function* () {
              const reserved = yield* on.reserve
              const held = yield* Deferred.make<void>()
              proxy.onMessage = (type) => (type === "Z" ? Deferred.await(held) : undefined)
              yield* engines.failure(reserved.query(engines.statement("select 1/0")))
              const stream = Stream.runDrain(reserved.stream(numbers(1_000), []))
              const fiber = yield* Effect.fork(Effect.timeoutOption(stream, "20 millis"))
              yield* Effect.sleep("50 millis")
              yield* Deferred.succeed(held, undefined)
              assert.strictEqual((yield* Fiber.join(fiber))._tag, "None")
              assert.strictEqual(yield* engines.value(reserved, "select 1"), 1)
              assert.strictEqual(
                (yield* engines.collect({ stream: reserved.stream.bind(reserved) }, numbers(500))).length,
                500
              )
            })
          )
        )
      })
    )

    it.scoped("a hundred interruptions at any time", () =>
      Effect.gen(function* () {
        const on = yield* one
        const sql = "select g, pg_sleep(0.00002) from generate_series(1, 300) g"
        yield* keepsItsConnection(
          on,
          Effect.repeatN(
            Effect.flatMap(Random.nextIntBetween(0, 40), (millis) =>
              Effect.timeoutOption(Stream.runDrain(on.stream(sql, [])), millis)
            ),
            100
          )
        )
      }).pipe(Effect.withRandom(Random.make("streams")))
    )
  })

  it.scoped("are not hurt by a time limit for statements that passes after their batch", () =>
    Effect.gen(function* () {
      const node = yield* primary
      const on = yield* engines.make({
        url: Redacted.make(`${Redacted.value(node.url)}?query_timeout=100`),
        maxConnections: 1
      })
      const slowly = <A>(rows: Stream.Stream<A, SqlError.SqlError>) =>
        Stream.mapChunksEffect(rows, (chunk) => Effect.delay(Effect.succeed(chunk), "150 millis"))
      assert.strictEqual(Chunk.size(yield* Stream.runCollect(slowly(on.stream(numbers(300), [])))), 300)
      yield* Effect.scoped(
        Effect.gen(function* () {
          const reserved = yield* on.reserve
          yield* reserved.query(engines.statement("begin"))
          const cursor = reserved.cursor("numbers", numbers(300), [])
          let count = 0
          for (let rows = yield* cursor.fetch; rows.length > 0; rows = yield* cursor.fetch) {
            count += rows.length
            yield* Effect.sleep("150 millis")
          }
          assert.strictEqual(count, 300)
          yield* reserved.query(engines.statement("commit"))
        })
      )
      assert.strictEqual(on.inFlight, 0)
      assert.include(yield* engines.failure(on.query(engines.statement("select pg_sleep(0.3)"))), "timeout")
      // What passes for a statement ends its connection: the answer may still come.
      assert.strictEqual(yield* engines.settled(on), 0)
      assert.strictEqual(yield* engines.value(on, "select 1"), 1)
    })
  )

  describe("end with the connection", () => {
    const kill = Effect.flatMap(primary, (node) =>
      node.query("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'effect-db-router'")
    )

    it.scoped("when it is killed while the server works on a batch", () =>
      Effect.gen(function* () {
        const on = yield* one
        const seen = yield* engines.troubles(
          Effect.gen(function* () {
            const slow = "select pg_sleep(case when g = 200 then 60 else 0 end) from generate_series(1, 1000) g"
            const fiber = yield* Effect.fork(engines.failure(engines.collect(on, slow)))
            yield* engines.eventually(
              Effect.flatMap(primary, (node) => engines.activity(node)),
              (sessions) => sessions.some(({ state }) => state === "active")
            )
            yield* kill
            assert.strictEqual(yield* Fiber.join(fiber), "57P01")
          })
        )
        assert.deepStrictEqual(seen, [])
        assert.strictEqual(yield* engines.value(on, "select 1"), 1)
      })
    )

    it.scoped("when it is killed between two batches", () =>
      Effect.gen(function* () {
        const on = yield* one
        const seen = yield* engines.troubles(
          Effect.gen(function* () {
            let count = 0
            const rows = Stream.mapChunksEffect(on.stream(numbers(1_000), []), (chunk) => {
              count += chunk.length
              return Effect.zipRight(Effect.zipRight(kill, Effect.sleep("50 millis")), Effect.succeed(chunk))
            })
            assert.strictEqual(yield* engines.failure(Stream.runDrain(rows)), "57P01")
            assert.strictEqual(count, 128)
          })
        )
        assert.deepStrictEqual(seen, [])
        assert.strictEqual(yield* engines.value(on, "select 1"), 1)
      })
    )

    it.scoped("when it is reset without a message", () =>
      Effect.gen(function* () {
        const { on, proxy } = yield* throughProxy
        const rows = Stream.mapChunksEffect(on.stream(numbers(1_000), []), (chunk) =>
          Effect.zipRight(
            Effect.sync(() => proxy.reset()),
            Effect.succeed(chunk)
          )
        )
        assert.instanceOf(yield* Effect.flip(Stream.runDrain(rows)), SqlError.SqlError)
        assert.strictEqual(yield* engines.value(on, "select 1"), 1)
      })
    )
  })
})
