import * as Fs from "node:fs"
import * as Net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, layer } from "@effect/vitest"
import { Context, Effect, Layer, Redacted } from "effect"
import { PgCluster } from "effect-db-router/testing"
import { types } from "pg"
import * as account from "../../src/internal/cluster/account.js"
import * as certificates from "../support/certificate.js"
import * as engines from "../support/engine.js"

interface Shape {
  readonly directory: string
  readonly server: certificates.Certificate
  readonly client: certificates.Certificate
}

/** A directory that the server's account can use, and the certificates in it. */
class Files extends Context.Tag("test/Files")<Files, Shape>() {}

const files = Layer.scoped(
  Files,
  Effect.gen(function* () {
    const [{ gid, uid }] = yield* account.candidates
    const directory = yield* Effect.acquireRelease(
      Effect.sync(() => Fs.mkdtempSync(join(tmpdir(), "edr-"))),
      (directory) => Effect.sync(() => Fs.rmSync(directory, { recursive: true, force: true }))
    )
    Fs.chmodSync(directory, 0o777)
    const server = certificates.make("localhost")
    const client = certificates.make("a client")
    Fs.writeFileSync(join(directory, "server.crt"), server.cert)
    Fs.writeFileSync(join(directory, "clients.crt"), client.cert)
    Fs.writeFileSync(join(directory, "server.key"), server.key, { mode: 0o600 })
    if (uid !== undefined && gid !== undefined) Fs.chownSync(join(directory, "server.key"), uid, gid)
    return { directory, server, client }
  })
)

const cluster = Layer.unwrapEffect(
  Effect.map(Files, ({ directory }) =>
    PgCluster.layer({
      replicas: 0,
      settings: {
        unix_socket_directories: directory,
        ssl: "on",
        ssl_cert_file: join(directory, "server.crt"),
        ssl_key_file: join(directory, "server.key"),
        ssl_ca_file: join(directory, "clients.crt")
      }
    })
  )
)

const primary = Effect.map(PgCluster.PgCluster, (cluster) => cluster.primary)

const withQuery = (url: Redacted.Redacted, query: string) => Redacted.make(`${Redacted.value(url)}?${query}`)

type Engine = Effect.Effect.Success<ReturnType<typeof engines.make>>

/** A cancel that does not reach the server would end in a connection that is destroyed, so the same one must remain. */
const canCancel = (on: Engine) =>
  Effect.gen(function* () {
    const pid = yield* engines.value(on, "select pg_backend_pid()")
    yield* Effect.timeoutOption(on.query(engines.statement("select pg_sleep(60)")), "50 millis")
    assert.strictEqual(yield* engines.value(on, "select pg_backend_pid()"), pid)
    const running = "select count(*)::int from pg_stat_activity where state = 'active' and query ~ 'pg_sleep\\(60'"
    assert.strictEqual(yield* engines.value(on, `${running} and pid <> pg_backend_pid()`), 0)
  })

const tlsOf = (on: Engine) =>
  Effect.map(
    engines.rows(on, "select ssl, client_dn from pg_stat_ssl where pid = pg_backend_pid()"),
    ([row]) => row as { readonly ssl: boolean; readonly client_dn: string | null }
  )

layer(Layer.provideMerge(cluster, files), { excludeTestServices: true })("an engine connects", (it) => {
  describe("over TLS", () => {
    it.scoped("that verifies the server by name, for cancels too", () =>
      Effect.gen(function* () {
        const node = yield* primary
        const { server } = yield* Files
        const options = { ...engines.partsOf(node), host: "localhost", port: node.port, maxConnections: 1 }
        const on = yield* engines.make({ ...options, ssl: { ca: server.cert } })
        assert.deepStrictEqual(yield* tlsOf(on), { ssl: true, client_dn: null })
        yield* canCancel(on)
        const stranger = yield* engines.make({ ...options, ssl: { ca: certificates.make("localhost").cert } })
        assert.strictEqual(
          yield* engines.failure(stranger.query(engines.statement("select 1"))),
          "DEPTH_ZERO_SELF_SIGNED_CERT"
        )
        assert.strictEqual(yield* engines.settled(stranger), 0)
      })
    )

    it.scoped("with a client's certificate, for cancels too", () =>
      Effect.gen(function* () {
        const node = yield* primary
        const { client, server } = yield* Files
        const on = yield* engines.make({
          ...engines.partsOf(node),
          host: "localhost",
          port: node.port,
          maxConnections: 1,
          ssl: { ca: server.cert, cert: client.cert, key: client.key }
        })
        assert.deepStrictEqual(yield* tlsOf(on), { ssl: true, client_dn: "/CN=a client" })
        yield* canCancel(on)
      })
    )

    it.scoped("as the URL says, without a request for it first", () =>
      Effect.gen(function* () {
        const node = yield* primary
        const url = withQuery(node.url, "sslmode=no-verify&sslnegotiation=direct")
        const on = yield* engines.make({ url, maxConnections: 1 })
        assert.deepStrictEqual(yield* tlsOf(on), { ssl: true, client_dn: null })
        yield* canCancel(on)
      })
    )

    it.scoped("and a connection that has to be destroyed takes its socket with it", () =>
      Effect.gen(function* () {
        const node = yield* primary
        const on = yield* engines.make({ url: withQuery(node.url, "sslmode=no-verify"), maxConnections: 1 })
        yield* Effect.scoped(
          Effect.gen(function* () {
            const reserved = yield* on.reserve
            yield* reserved.query(engines.statement("begin"))
            yield* reserved.destroy
          })
        )
        yield* engines.eventually(engines.activity(node), (sessions) => sessions.length === 0)
        assert.strictEqual(yield* engines.value(on, "select 1"), 1)
      })
    )

    it.scoped("and says what is wrong with a request for nonsense", () =>
      Effect.gen(function* () {
        const node = yield* primary
        const on = yield* engines.make({ url: withQuery(node.url, "sslnegotiation=sideways") })
        assert.include(yield* engines.failure(on.query(engines.statement("select 1"))), "sslnegotiation")
        assert.strictEqual(yield* engines.settled(on), 0)
      })
    )
  })

  for (const field of ["host", "path"] as const) {
    it.scoped(`over a Unix socket in the directory that ${field} names`, () =>
      Effect.gen(function* () {
        const node = yield* primary
        const { directory } = yield* Files
        const on = yield* engines.make({
          ...engines.partsOf(node),
          [field]: directory,
          port: node.port,
          maxConnections: 1
        })
        assert.strictEqual(yield* engines.value(on, "select inet_client_addr() is null"), true)
        yield* canCancel(on)
      })
    )
  }

  it.scoped("through a socket of one's own, for cancels too", () =>
    Effect.gen(function* () {
      const node = yield* primary
      let made = 0
      const stream = () => {
        made++
        return new Net.Socket()
      }
      const on = yield* engines.on(node, { stream, maxConnections: 1 })
      yield* canCancel(on)
      assert.strictEqual(made, 2)
    })
  )

  it.scoped("with what the URL says, and under its name", () =>
    Effect.gen(function* () {
      const node = yield* primary
      const query = "options=-c%20work_mem%3D7MB&statement_timeout=50&application_name=from-url"
      const on = yield* engines.make({ url: withQuery(node.url, query) })
      assert.strictEqual(yield* engines.value(on, "show work_mem"), "7MB")
      assert.strictEqual(yield* engines.value(on, "show application_name"), "from-url")
      assert.strictEqual(yield* engines.failure(on.query(engines.statement("select pg_sleep(10)"))), "57014")
      const named = yield* engines.on(node, { applicationName: "from-option" })
      assert.strictEqual(yield* engines.value(named, "show application_name"), "from-option")
    })
  )

  it.scoped("and reads values with the parsers of its configuration, in streams too", () =>
    Effect.gen(function* () {
      const getTypeParser = ((oid: number, format: "text") =>
        oid === types.builtins.INT8 ? BigInt : types.getTypeParser(oid, format)) as typeof types.getTypeParser
      const on = yield* engines.on(yield* primary, { types: { getTypeParser } })
      const expected = [{ big: 9007199254740993n, small: 1 }]
      const sql = "select 9007199254740993::int8 as big, 1 as small"
      assert.deepStrictEqual(yield* engines.rows(on, sql), expected)
      assert.deepStrictEqual(yield* engines.collect(on, sql), expected)
    })
  )
})
