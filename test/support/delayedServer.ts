/** A real server behind a proxy that delays what statements do and what they answer, as `fakeServer` does. */
import * as Net from "node:net"
import { Effect, type Scope } from "effect"
import type { PgCluster } from "effect-db-router/testing"
import type { Server } from "./fakeServer.js"

const cancelCode = 80_877_102

/** Waits so many milliseconds, or for ever. */
const wait = (millis: number): Promise<void> =>
  millis === Number.POSITIVE_INFINITY
    ? new Promise(() => {})
    : millis === 0
      ? Promise.resolve()
      : new Promise((resolve) => setTimeout(resolve, millis))

const textAt = (bytes: Buffer, at: number): string => bytes.toString("utf8", at, bytes.indexOf(0, at))

/** What a client says, message by message. The first one has no type. */
class Client {
  private rest: Buffer = Buffer.alloc(0)
  private hasStarted = false
  /** The texts of its prepared statements, and those that it has parsed since its last Sync. */
  private readonly texts = new Map<string, string>()
  private readonly parsed = new Set<string>()

  messages(chunk: Buffer): ReadonlyArray<{ readonly bytes: Buffer; readonly sql: string | undefined }> {
    this.rest = Buffer.concat([this.rest, chunk])
    const found: Array<{ readonly bytes: Buffer; readonly sql: string | undefined }> = []
    for (;;) {
      const head = this.hasStarted ? 1 : 0
      const length = this.rest.length < head + 4 ? Number.POSITIVE_INFINITY : head + this.rest.readInt32BE(head)
      if (this.rest.length < length) return found
      const bytes = this.rest.subarray(0, length)
      this.rest = this.rest.subarray(length)
      found.push({ bytes, sql: this.hasStarted ? this.sqlOf(String.fromCharCode(bytes[0]!), bytes) : undefined })
      this.hasStarted = true
    }
  }

  private sqlOf(type: string, bytes: Buffer): string | undefined {
    if (type === "Q") return textAt(bytes, 5)
    if (type === "S") this.parsed.clear()
    if (type === "P") {
      const name = textAt(bytes, 5)
      const sql = textAt(bytes, 5 + Buffer.byteLength(name) + 1)
      this.texts.set(name, sql)
      this.parsed.add(name)
      return sql
    }
    if (type !== "B") return undefined
    const name = textAt(bytes, 5 + Buffer.byteLength(textAt(bytes, 5)) + 1)
    return this.parsed.has(name) ? undefined : this.texts.get(name)
  }
}

/** A server whose state is asked for. */
export interface Delayed extends Server {
  /** Waits until it works on nothing of these connections, for some seconds at most, and asks what it has committed. */
  readonly look: Effect.Effect<void, unknown>
}

/** `onSlow` hears when an answer of the server itself took so many milliseconds. */
export const make = (
  node: PgCluster.Node,
  applicationName: string,
  onSlow: (millis: number) => void
): Effect.Effect<Delayed, never, Scope.Scope> =>
  Effect.gen(function* () {
    const clients = new Set<Net.Socket>()
    const committed = new Set<string>()
    let open = 0

    const serve = (client: Net.Socket) => {
      clients.add(client)
      const upstream = new Net.Socket()
      const close = () => {
        clients.delete(client)
        client.destroy()
        upstream.destroy()
      }
      for (const socket of [client, upstream])
        socket
          .setNoDelay(true)
          .on("error", () => {})
          .on("close", close)
      const reader = new Client()
      let said = Promise.resolve()
      let answered = Promise.resolve()
      let isCutAtAnswer = false
      let askedAt: number | undefined
      let isFirst = true
      const begin = async (bytes: Buffer) => {
        const isCancel = bytes.length === 16 && bytes.readInt32BE(4) === cancelCode
        await wait(isCancel ? server.cancelDelay : server.connectDelay)
        if (!client.destroyed || isCancel) upstream.connect(node.port, node.host)
      }
      const pass = async (bytes: Buffer, sql: string | undefined) => {
        if (isFirst) {
          isFirst = false
          await begin(bytes)
        }
        if (sql !== undefined) {
          const { answer, work } = server.delayOf(sql)
          const cut = server.cutOf(sql)
          server.onStatement(sql)
          await wait(work)
          if (cut === "before") return close()
          if (cut === "after") isCutAtAnswer = true
          if (answer > 0) answered = answered.then(() => wait(answer))
          askedAt ??= performance.now()
        }
        if (!upstream.destroyed) upstream.write(bytes)
      }
      client.on("data", (chunk: Buffer) => {
        for (const { bytes, sql } of reader.messages(chunk)) said = said.then(() => pass(bytes, sql))
      })
      upstream.on("data", (chunk: Buffer) => {
        if (askedAt !== undefined) onSlow(performance.now() - askedAt)
        askedAt = undefined
        if (isCutAtAnswer) return close()
        answered = answered.then(() => void client.write(chunk))
        return undefined
      })
    }

    const listener = yield* Effect.acquireRelease(
      Effect.async<Net.Server>((resume) => {
        const server = Net.createServer(serve)
        server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
      }),
      (server) =>
        Effect.sync(() => {
          for (const client of clients) client.destroy()
          server.close()
        })
    )
    const look = Effect.gen(function* () {
      for (const began = performance.now(); ; ) {
        const [row] = yield* node.query<{ n: number }>(
          `SELECT count(*)::int AS n FROM pg_stat_activity WHERE application_name = $1 AND state <> 'idle'`,
          [applicationName]
        )
        open = row!.n
        if (open === 0 || performance.now() - began > 8_000) break
        yield* Effect.sleep("5 millis")
      }
      for (const { v } of yield* node.query<{ v: string }>("SELECT v FROM t")) committed.add(v)
    })
    const server: Delayed = {
      port: (listener.address() as Net.AddressInfo).port,
      delayOf: () => ({ work: 0, answer: 0 }),
      cancelDelay: 0,
      connectDelay: 0,
      cutOf: () => undefined,
      onStatement: () => {},
      committed,
      open: () => open,
      connections: () => clients.size,
      isQuiet: () => true,
      look
    }
    return server
  })
