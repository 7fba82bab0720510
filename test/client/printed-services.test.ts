/** What a crash reporter prints of the public services: no password. */
import { inspect } from "node:util"
import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Chunk, Effect, Fiber, Layer, Redacted, Stream } from "effect"
import { DbRouter, type RouterConfig } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import { partsOf } from "../support/engine.js"

const password = "s3cr3t-Pa55w0rd"

/** All that can be reached from a value: properties that are not enumerable, too. */
const printed = (value: unknown): string =>
  inspect(value, {
    depth: 40,
    showHidden: true,
    maxArrayLength: null,
    maxStringLength: null
  })

const isSilent = (what: string, value: unknown): void => {
  const text = printed(value)
  const at = text.indexOf(password)
  assert.strictEqual(at < 0 ? "" : text.slice(Math.max(0, at - 200), at + 20), "", what)
}

const withUrl = (node: PgCluster.Node): RouterConfig.EngineConfig => {
  const url = new URL(Redacted.value(node.url))
  url.username = "printed"
  url.password = password
  return { name: node.name, url: Redacted.make(String(url)) }
}

const withPassword = (node: PgCluster.Node): RouterConfig.EngineConfig => ({
  name: node.name,
  host: "127.0.0.1",
  port: node.port,
  database: partsOf(node).database,
  username: "printed",
  password: Redacted.make(password)
})

const withEffect = (node: PgCluster.Node): RouterConfig.EngineConfig => ({
  ...withPassword(node),
  password: Effect.succeed(Redacted.make(password))
})

layer(PgCluster.layer({ replicas: 1 }), { excludeTestServices: true, timeout: "2 minutes" })(
  "the services of the context",
  (it) => {
    it.scoped("print no password, however deep", () =>
      Effect.gen(function* () {
        const { awaitReplayed, primary, replicas } = yield* PgCluster.PgCluster
        yield* primary.query(`CREATE ROLE printed LOGIN SUPERUSER PASSWORD '${password}'`)
        yield* awaitReplayed
        for (const [what, at] of Object.entries({ withUrl, withPassword, withEffect })) {
          const options = { groups: { default: [at(primary)], read: replicas.map(at) } }
          const context = yield* Layer.build(DbRouter.layer(options))
          yield* Effect.gen(function* () {
            const sql = yield* PgClient.PgClient
            const router = yield* DbRouter.DbRouter
            const listening = yield* Effect.fork(Stream.runDrain(sql.listen("printed")))
            yield* sql`SELECT 1`
            yield* DbRouter.session(
              Effect.gen(function* () {
                yield* DbRouter.primary(sql`SELECT 1`)
                isSilent(`${what}: the router in a session`, router)
              })
            )
            const events = yield* Effect.fork(Stream.runCollect(Stream.interruptAfter(router.events, "300 millis")))
            yield* router.rebind(replicas[0]!.name, at(replicas[0]!))
            yield* sql`SELECT 1`
            isSilent(`${what}: an error`, yield* Effect.flip(sql`SELECT 1/0`))
            isSilent(`${what}: the events`, Chunk.toReadonlyArray(yield* Fiber.join(events)))
            isSilent(`${what}: the status`, yield* router.status)
            isSilent(`${what}: the client`, sql)
            isSilent(`${what}: the context`, context)
            yield* Fiber.interrupt(listening)
          }).pipe(Effect.provide(context))
        }
      })
    )
  }
)
