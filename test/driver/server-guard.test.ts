/** What a server says that it must not say: that connection fails, with a reason, and nothing else. */
import * as Net from "node:net"
import * as Tls from "node:tls"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, type Scope } from "effect"
import { Connection } from "../../src/internal/driver/connection.js"
import type { Config } from "../../src/internal/driver/guard.js"
import { Probe } from "../../src/internal/engine/probe.js"
import { message, ready } from "../fuzz/Mutation.js"
import * as Certificate from "../support/certificate.js"

const int32 = (n: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(n)
  return bytes
}
const text = (...texts: ReadonlyArray<string>) => Buffer.from(texts.map((one) => `${one}\0`).join(""))
const authentication = (kind: number, more = Buffer.alloc(0)) => message("R", Buffer.concat([int32(kind), more]))
const letIn = Buffer.concat([authentication(0), message("K", Buffer.alloc(8, 1)), ready])

/** What came from a client after its first message. */
interface Server {
  readonly port: number
  readonly heard: () => string
}

/** A server that answers each thing that a client says with the next of its lines, over TLS where it has a certificate. */
const serve = (
  lines: ReadonlyArray<Buffer>,
  certificate?: Certificate.Certificate
): Effect.Effect<Server, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.async<{ readonly server: Net.Server; readonly heard: Array<Buffer>; readonly sockets: Set<Net.Socket> }>(
      (resume) => {
        const heard: Array<Buffer> = []
        const sockets = new Set<Net.Socket>()
        const talk = (socket: Net.Socket) => {
          let line = 0
          socket.on("error", () => {})
          socket.on("data", (chunk) => {
            heard.push(chunk)
            const answer = lines[line++]
            if (answer !== undefined) socket.write(answer)
          })
        }
        const server = Net.createServer((socket) => {
          sockets.add(socket)
          if (certificate === undefined) return talk(socket)
          socket.on("error", () => {})
          socket.once("data", () => {
            socket.write("S")
            talk(new Tls.TLSSocket(socket, { isServer: true, ...certificate }))
          })
          return undefined
        })
        server.listen(0, "127.0.0.1", () => resume(Effect.succeed({ server, heard, sockets })))
      }
    ),
    ({ server, sockets }) =>
      Effect.sync(() => {
        for (const socket of sockets) socket.destroy()
        server.close()
      })
  ).pipe(
    Effect.map(({ heard, server }) => ({
      port: (server.address() as Net.AddressInfo).port,
      heard: () => Buffer.concat(heard).toString("latin1")
    }))
  )

/** The ways in which a statement is run. */
const asks = {
  "a statement": (connection: Connection, answered: (error: Error | undefined) => void) =>
    connection.query({ text: "SELECT 1", values: [1] }, answered),
  "a statement without values": (connection: Connection, answered: (error: Error | undefined) => void) =>
    connection.query({ text: "SELECT 1" }, answered),
  "a prepared statement": (connection: Connection, answered: (error: Error | undefined) => void) =>
    connection.query({ text: "SELECT 1", name: "one" }, answered),
  "a read that shares its connection": (connection: Connection, answered: (error: Error | undefined) => void) => {
    connection.query({ text: "SELECT 1", name: "one", isShared: true }, answered)
    connection.query({ text: "SELECT 2", name: "two", isShared: true }, () => {})
  },
  "a stream": (connection: Connection, answered: (error: Error | undefined) => void) =>
    connection.open("SELECT 1", [], 10).read(answered),
  "a cursor": (connection: Connection, answered: (error: Error | undefined) => void) =>
    connection.fetch({ portal: "p", sql: "SELECT 1", values: [], state: "new" }, 10, answered)
} as const

/** Connects, and runs a statement if that succeeds. Tells the error of the one or the other. */
const talkTo = (
  { port }: Server,
  config: Config = {},
  ask: (connection: Connection, answered: (error: Error | undefined) => void) => void = asks["a statement"]
): Effect.Effect<string | undefined> =>
  Effect.async<string | undefined>((resume) => {
    const connection = new Connection(
      {
        host: "127.0.0.1",
        port,
        user: "me",
        password: "s3cret",
        database: "d",
        connectionTimeoutMillis: 3_000,
        ...config
      },
      () => {}
    )
    const end = (error: Error | undefined) => {
      const usable = connection.isUsable
      connection.destroy()
      resume(Effect.succeed(error === undefined ? undefined : `${error.message}${usable ? " (usable)" : ""}`))
    }
    connection.connect((error) => {
      if (error !== undefined) return end(error)
      ask(connection, end)
      return undefined
    })
  })

const rows = Buffer.concat([message("1"), message("2"), message("n"), message("C", text("SELECT 0")), ready])

describe("a server that says what it must not", () => {
  const lines: ReadonlyArray<readonly [string, Buffer, RegExp]> = [
    ["a row of -1 columns", message("D", Buffer.from([255, 255])), /malformed message "D"/],
    ["a row that ends early", message("D", Buffer.from([0x75, 0x30])), /malformed message "D"/],
    ["columns that end early", message("T", Buffer.from([0, 3])), /malformed message "T"/],
    ["an error without an end", message("E", Buffer.from("SERROR")), /malformed message "E"/],
    ["a message of no length", message("C", Buffer.alloc(0), 0), /"C" of 0 bytes/],
    ["a message longer than any", message("D", Buffer.alloc(2), 0x7fff_ffff), /"D" of 2147483647 bytes/],
    ["a message of an unknown type", message("?"), /a type that there is not: "\?"/],
    ["an unknown authentication", authentication(99), /authentication of a kind .*: 99/],
    ["a request for the password in the middle", authentication(3), /begun the conversation anew/],
    ["rows that it keeps back", message("s"), /keeps rows back/],
    ["that it is ready, and has done nothing", ready, /though nothing has ended/]
  ]
  for (const [what, line, expected] of lines) {
    it.scopedLive(`${what}: the statement fails, and its connection is gone`, () =>
      Effect.gen(function* () {
        const server = yield* serve([letIn, line])
        const error = yield* talkTo(server)
        assert.match(error ?? "no error", expected)
        assert.notInclude(error, "usable")
      })
    )
  }

  const columns = Buffer.from([0, 0, 0])
  const copies: ReadonlyArray<readonly [string, Buffer, RegExp]> = [
    [
      "that it copies out",
      Buffer.concat([message("H", columns), message("d", text("x")), message("c")]),
      /copies data/
    ],
    ["that it copies in", message("G", columns), /copies data/],
    ["that it copies both ways", message("W", columns), /a type that there is not: "W"/],
    ["data of a copy", message("d", text("x")), /copies data/],
    ["the end of a copy", message("c"), /copies data/]
  ]
  for (const [what, line, expected] of copies) {
    it.scopedLive(`${what}: however it was asked, it fails, and its connection is gone`, () =>
      Effect.gen(function* () {
        for (const [way, ask] of Object.entries(asks)) {
          const server = yield* serve([letIn, Buffer.concat([line, message("C", text("COPY 1")), ready])])
          const error = yield* talkTo(server, {}, ask)
          assert.match(error ?? "no error", expected, way)
          assert.notInclude(error, "usable", way)
        }
      })
    )
  }

  it.scopedLive("an answer too many ends the connection, not the process", () =>
    Effect.gen(function* () {
      const server = yield* serve([letIn, Buffer.concat([rows, ready])])
      assert.isUndefined(yield* talkTo(server))
      assert.isUndefined(yield* talkTo(server))
    })
  )

  it.scopedLive("that it is ready before it has let the client in", () =>
    Effect.gen(function* () {
      assert.match((yield* talkTo(yield* serve([ready])))!, /without an authentication/)
    })
  )
})

describe("a password", () => {
  const cleartext = [authentication(3), letIn, rows]

  it.scopedLive("is not sent in clear text over a connection that anyone can read", () =>
    Effect.gen(function* () {
      const server = yield* serve(cleartext)
      assert.match((yield* talkTo(server))!, /clear text.*allowCleartextPassword/)
      assert.notInclude(server.heard(), "s3cret")
    })
  )

  it.scopedLive("is sent so where the options ask for it", () =>
    Effect.gen(function* () {
      const server = yield* serve(cleartext)
      assert.isUndefined(yield* talkTo(server, { allowCleartextPassword: true }))
      assert.include(server.heard(), "s3cret")
    })
  )

  it.scopedLive("is sent so to a server that has shown a certificate that was verified, and only then", () =>
    Effect.gen(function* () {
      const certificate = Certificate.make("db.example")
      const verified = yield* serve(cleartext, certificate)
      assert.isUndefined(yield* talkTo(verified, { ssl: { ca: certificate.cert, servername: "db.example" } }))
      assert.include(verified.heard(), "s3cret")
      const unknown = yield* serve(cleartext, certificate)
      assert.match((yield* talkTo(unknown, { ssl: { rejectUnauthorized: false } }))!, /clear text/)
      assert.notInclude(unknown.heard(), "s3cret")
    })
  )

  it.scopedLive("that there is none: connecting fails, and nothing throws", () =>
    Effect.gen(function* () {
      const server = yield* serve(cleartext)
      const config = { allowCleartextPassword: true, password: () => undefined as unknown as string }
      assert.match((yield* talkTo(server, config))!, /client password must be a string/)
    })
  )

  it.scopedLive("that the server does not prove to know, although it has begun to: it is not believed", () =>
    Effect.gen(function* () {
      const server = yield* serve([authentication(10, Buffer.from("SCRAM-SHA-256\0\0")), letIn])
      assert.match((yield* talkTo(server))!, /not proven that it knows the password/)
    })
  )
})

describe("an odd answer to a probe", () => {
  const good = ["t", "7300000000000000000", "1", "100", "1793000000000.5", "t", "off"]
  const answer = (fields: ReadonlyArray<string | null>) => {
    const body = fields.map((field) =>
      field === null ? int32(-1) : Buffer.concat([int32(Buffer.byteLength(field)), Buffer.from(field)])
    )
    const count = Buffer.from([0, fields.length])
    const column = (i: number) =>
      Buffer.concat([
        text(`c${i}`),
        int32(0),
        Buffer.from([0, 0]),
        int32(25),
        Buffer.from([255, 255]),
        int32(-1),
        Buffer.from([0, 0])
      ])
    return Buffer.concat([
      message("T", Buffer.concat([count, ...fields.map((_, i) => column(i))])),
      message("D", Buffer.concat([count, ...body])),
      message("C", text("SELECT 1")),
      ready
    ])
  }
  const probe = (line: Buffer) =>
    Effect.scoped(
      Effect.gen(function* () {
        const { port } = yield* serve([letIn, line])
        const probe = yield* Effect.acquireRelease(
          Effect.sync(() => new Probe(() => {})),
          (probe) => Effect.sync(() => probe.close())
        )
        return yield* Effect.either(
          probe.run({ host: "127.0.0.1", port, user: "me" }, Duration.seconds(3), false, undefined)
        )
      })
    )
  const change = (at: number, value: string | null) => good.with(at, value as string)

  const odd: ReadonlyArray<readonly [string, Buffer, RegExp]> = [
    ["no row", Buffer.concat([message("C", text("SELECT 0")), ready]), /without a row/],
    ["a role that is none", answer(change(0, "maybe")), /odd role: "maybe"/],
    ["no system", answer(change(1, null)), /odd system identifier: null/],
    ["a timeline that is no number", answer(change(2, "abc")), /odd timeline: "abc"/],
    ["timeline 0", answer(change(2, "0")), /odd timeline: "0"/],
    ["timeline -1", answer(change(2, "-1")), /odd timeline/],
    ["timeline 1.5", answer(change(2, "1.5")), /odd timeline/],
    ["timeline 2^32", answer(change(2, "4294967296")), /odd timeline/],
    ["a position that is no number", answer(change(3, "x")), /odd position: "x"/],
    ["no position", answer(change(3, null)), /odd position: null/],
    ["a position past all", answer(change(3, "18446744073709551616")), /odd position/],
    ["a start that is no time", answer(change(4, "NaN")), /odd start time/]
  ]
  for (const [what, line, expected] of odd) {
    it.live(`${what}: the probe has failed`, () =>
      Effect.gen(function* () {
        const found = yield* probe(line)
        assert.isTrue(found._tag === "Left")
        if (found._tag === "Left") assert.match(String((found.left.cause as Error).message), expected)
      })
    )
  }

  it.live("what is not odd is a report, of a server that tells less too", () =>
    Effect.gen(function* () {
      for (const fields of [good, good.slice(0, 5)]) {
        const found = yield* probe(answer(fields))
        assert.isTrue(found._tag === "Right")
        if (found._tag === "Right") assert.deepStrictEqual([found.right.role, found.right.timeline], ["replica", 1])
      }
    })
  )
})
