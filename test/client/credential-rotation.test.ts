/** Passwords and certificates that change while the router runs: new connections use the new ones, and nothing is cut. */
import { PgClient } from "@effect/sql-pg"
import { assert, layer, it as test } from "@effect/vitest"
import { Deferred, Effect, Either, Fiber, Redacted, Ref, Stream } from "effect"
import { DbRouter, RouterConfig } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import { partsOf } from "../support/engine.js"

/** The roles whose passwords change. */
const role = (name: string, password: string) =>
  Effect.gen(function* () {
    const { awaitReplayed, primary } = yield* PgCluster.PgCluster
    yield* primary.query(`CREATE ROLE ${name} LOGIN SUPERUSER PASSWORD '${password}'`)
    yield* awaitReplayed
  })

const change = (name: string, password: string) =>
  Effect.gen(function* () {
    const { awaitReplayed, primary } = yield* PgCluster.PgCluster
    yield* primary.query(`ALTER ROLE ${name} PASSWORD '${password}'`)
    yield* awaitReplayed
  })

const at = (node: PgCluster.Node) => ({ host: "127.0.0.1", port: node.port, database: partsOf(node).database })

const health = { interval: "200 millis", timeout: "1 second" } as const

class VaultError extends Error {
  readonly _tag = "VaultError"
  constructor(readonly secret: string) {
    super(`the vault says ${secret}`)
  }
}

layer(PgCluster.layer({ replicas: 1 }), { excludeTestServices: true, timeout: "2 minutes" })(
  "a new password for the same server",
  (it) => {
    it.scoped("cuts nothing that runs, listens or waits, and new connections use it", () =>
      Effect.gen(function* () {
        const { primary, replicas } = yield* PgCluster.PgCluster
        yield* role("rotating", "zero")
        const engine = (node: PgCluster.Node, password: string) => ({
          ...at(node),
          username: "rotating",
          password: Redacted.make(password)
        })
        yield* Effect.gen(function* () {
          const sql = yield* PgClient.PgClient
          const router = yield* DbRouter.DbRouter
          const heard = yield* Ref.make<ReadonlyArray<string>>([])
          const inside = yield* Deferred.make<void>()
          const listening = yield* Effect.fork(
            Stream.runForEach(sql.listen("kept"), (payload) => Ref.update(heard, (all) => [...all, payload]))
          )
          yield* sql`CREATE TABLE kept (id int)`
          const transaction = yield* Effect.fork(
            sql.withTransaction(
              Effect.gen(function* () {
                yield* sql`INSERT INTO kept VALUES (1)`
                yield* Deferred.await(inside)
                yield* sql`INSERT INTO kept VALUES (2)`
              })
            )
          )
          const slow = yield* Effect.fork(sql`SELECT pg_sleep(1.5)`)
          const replica = yield* Effect.fork(DbRouter.replica(sql`SELECT pg_sleep(1.5)`))
          yield* Effect.sleep("300 millis")
          const positions = Effect.map(router.explain("SELECT id FROM kept"), ({ group }) => group)
          for (const password of ["one", "two", "three"]) {
            yield* change("rotating", password)
            yield* router.rebind("default-1", engine(primary, password))
            yield* router.rebind("read-1", engine(replicas[0]!, password))
            assert.deepStrictEqual(
              (yield* router.status).map(({ state }) => state),
              ["up", "up"]
            )
            yield* positions
            yield* sql.notify("kept", password)
          }
          // As many at once as need new connections.
          yield* Effect.all(
            Array.from({ length: 8 }, () => sql`SELECT pg_sleep(0.1), nextval('rotated')`.pipe(Effect.either)),
            { concurrency: "unbounded" }
          )
          yield* Deferred.succeed(inside, undefined)
          yield* Fiber.join(transaction)
          yield* Fiber.join(Fiber.zip(slow, replica))
          assert.deepStrictEqual(yield* DbRouter.primary(sql`SELECT id FROM kept ORDER BY id`), [{ id: 1 }, { id: 2 }])
          assert.deepStrictEqual(yield* Ref.get(heard), ["one", "two", "three"])
          assert.isNull(listening.unsafePoll())
          yield* Fiber.interrupt(listening)
        }).pipe(
          Effect.provide(
            DbRouter.layer({
              groups: { default: [engine(primary, "zero")], read: [engine(replicas[0]!, "zero")] },
              health,
              shutdownTimeout: 0
            })
          )
        )
      }).pipe(Effect.timeout("30 seconds"))
    )

    it.scoped("that is wrong changes nothing", () =>
      Effect.gen(function* () {
        const { primary } = yield* PgCluster.PgCluster
        yield* role("mistaken", "right")
        const engine = (password: string) => ({
          ...at(primary),
          username: "mistaken",
          password: Redacted.make(password)
        })
        yield* Effect.gen(function* () {
          const sql = yield* PgClient.PgClient
          const router = yield* DbRouter.DbRouter
          const error = yield* Effect.flip(router.rebind("default-1", engine("wrong")))
          assert.strictEqual(error._tag, "SqlError")
          yield* Effect.all(
            Array.from({ length: 6 }, () => sql`SELECT pg_sleep(0.1)`),
            { concurrency: "unbounded" }
          )
        }).pipe(Effect.provide(DbRouter.layer({ groups: { default: [engine("right")] }, health })))
      })
    )
  }
)

layer(PgCluster.layer({ replicas: 1 }), { excludeTestServices: true, timeout: "2 minutes" })(
  "a password that is an Effect",
  (it) => {
    it.scoped("is run for each new connection, also beside a URL", () =>
      Effect.gen(function* () {
        const { primary, replicas } = yield* PgCluster.PgCluster
        yield* role("asked", "token0")
        let asked = 0
        let token = "token0"
        const password = Effect.sync(() => {
          asked++
          return Redacted.make(token)
        })
        yield* Effect.gen(function* () {
          const sql = yield* PgClient.PgClient
          const several = Effect.all(
            Array.from({ length: 4 }, () => sql`SELECT pg_sleep(0.2)`),
            { concurrency: "unbounded" }
          )
          yield* several
          yield* sql`SELECT txid_current()`
          const before = asked
          assert.isAtLeast(before, 4)
          token = "token1"
          yield* change("asked", token)
          // Those that are open stay, and more are opened.
          yield* Effect.all(
            Array.from({ length: 8 }, () => sql`SELECT pg_sleep(0.2), txid_current()`),
            { concurrency: "unbounded" }
          )
          assert.isAbove(asked, before)
        }).pipe(
          Effect.provide(
            DbRouter.layer({
              groups: {
                default: [{ ...at(primary), username: "asked", password }],
                read: [{ url: Redacted.make(`postgresql://asked@127.0.0.1:${replicas[0]!.port}/postgres`), password }]
              },
              health
            })
          )
        )
      })
    )

    it.scoped("that fails, dies, says nothing or yields something else fails the connection, and shows nothing", () =>
      Effect.gen(function* () {
        const { primary } = yield* PgCluster.PgCluster
        yield* role("failing", "hunter2")
        const good = Effect.succeed(Redacted.make("hunter2"))
        const current = yield* Ref.make<Effect.Effect<Redacted.Redacted, unknown>>(good)
        const password = Effect.flatten(Ref.get(current))
        // The slow one comes first: after a failure connections wait for their turn, and the statement's time may be over before.
        const bad: Record<string, Effect.Effect<Redacted.Redacted, unknown>> = {
          "no answer within 450 ms": Effect.never,
          VaultError: Effect.fail(new VaultError("hunter2")),
          TypeError: Effect.die(new TypeError("hunter2")),
          "it failed": Effect.fail("hunter2"),
          "it is not a Redacted text": Effect.succeed("hunter2" as never)
        }
        yield* Effect.gen(function* () {
          const sql = yield* PgClient.PgClient
          const several = Effect.all(
            Array.from({ length: 3 }, () => Effect.either(sql`SELECT pg_sleep(0.3)`)),
            { concurrency: "unbounded" }
          )
          yield* sql`SELECT 1`
          for (const [why, effect] of Object.entries(bad)) {
            yield* Ref.set(current, effect)
            const [failed] = (yield* several).filter(Either.isLeft)
            assert.isDefined(failed, why)
            assert.strictEqual(failed!.left._tag, "SqlError")
            const shown = `${failed!.left.message} ${failed!.left.cause} ${JSON.stringify(failed!.left)}`
            assert.include(String(failed!.left.cause), why)
            assert.notInclude(shown, "hunter2")
          }
          // Connections are still to be opened: not all of them are in use.
          yield* Ref.set(current, Effect.never)
          const [overdue] = (yield* several).filter(Either.isLeft)
          assert.notInclude(String(overdue?.left.cause), "connections")
          yield* Ref.set(current, good)
          yield* Effect.sleep("1 second")
          assert.isTrue((yield* several).every(Either.isRight))
        }).pipe(
          Effect.provide(
            DbRouter.layer({
              groups: { default: [{ ...at(primary), username: "failing", password, connectTimeout: "500 millis" }] },
              health: false
            })
          )
        )
      }).pipe(Effect.timeout("30 seconds"))
    )
  }
)

test("a password that is an Effect beside one in the URL is refused, and neither is shown", () => {
  const password = Effect.succeed(Redacted.make("hunter2"))
  for (const url of ["postgresql://a:hunter2@h/d", "postgresql://a@h/d?password=hunter2"]) {
    const resolved = RouterConfig.resolveEngine({ field: "x", name: "x" }, { url: Redacted.make(url), password })
    assert.isTrue(Either.isLeft(resolved), url)
    if (Either.isLeft(resolved)) {
      assert.strictEqual(resolved.left.field, "x.password")
      assert.notInclude(resolved.left.message, "hunter2")
    }
  }
})
