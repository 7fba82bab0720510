/**
 * The one door by which what a server sends comes to the driver. Whatever is wrong with it, and whatever throws while it is
 * read, ends that connection, with a reason, and nothing else: without this it would end the process.
 */
import type { Duplex } from "node:stream"
import * as Pg from "pg"
import { auth, checkContent, checkHead, type } from "./backend.js"
import { ProtocolViolation } from "./failure.js"
import { Frames, type Inspector } from "./frames.js"
import { Held, ofProcess } from "./held.js"

/** What of the driver's connection is used, of which it declares no types. */
interface Connection {
  attachListeners(stream: Source): void
  password(text: unknown): void
  emit(event: "error", error: Error): unknown
  readonly stream: Duplex
}

type Source = Pick<Duplex, "on">

/** What the driver is told of a server. */
export interface Config extends Pg.PoolConfig {
  /** Whether a password may be sent as it is where no certificate has been verified. */
  readonly allowCleartextPassword?: boolean | undefined
  /** Parameters of the server as `options` of the startup packet has them. Those of the address come after them, and win. */
  readonly parameters?: string | undefined
}

/** The types of messages that end something, so that the server may become ready. */
const ends = new Set<number>([
  type.closeComplete,
  type.commandComplete,
  type.emptyQuery,
  type.error,
  type.portalSuspended
])

/** What may come before the server is ready for the first time. */
const starts = new Set<number>([
  type.authentication,
  type.error,
  type.keyData,
  type.notice,
  type.parameterStatus,
  type.readyForQuery
])

/** What a server may say, and when. */
class Conversation implements Inspector {
  private isStarting = true
  private isLetIn = false
  private sasl: "none" | "asked" | "proven" = "none"
  /** Something has ended since it was last ready. */
  private hasEnded = false

  /** `isSecret`: the connection is encrypted, so only the server can read what is sent. */
  constructor(
    private readonly isSecret: () => boolean,
    private readonly held: Held
  ) {}

  head(type: number, length: number): void {
    checkHead(type, length, this.isStarting)
  }

  content(kind: number, bytes: Buffer, from: number, to: number): void {
    checkContent(kind, bytes, from, to)
    if (kind === type.dataRow || kind === type.commandComplete) this.held.add(to - from)
    if (this.isStarting) this.whileStarting(kind, bytes, from)
    else if (kind === type.readyForQuery) {
      if (!this.hasEnded) throw new ProtocolViolation("The server has become ready though nothing has ended")
      this.hasEnded = false
      this.held.clear()
    } else if (ends.has(kind)) {
      this.hasEnded = true
      // One batch of a stream: its user takes it before there is another.
      if (kind === type.portalSuspended) this.held.clear()
    } else if (kind === type.authentication || kind === type.keyData) {
      throw new ProtocolViolation("The server has begun the conversation anew in the middle of it")
    }
  }

  private whileStarting(kind: number, bytes: Buffer, from: number): void {
    if (!starts.has(kind)) throw new ProtocolViolation("The server has answered before anything was asked")
    if (kind === type.authentication) this.authenticating(bytes.readInt32BE(from))
    else if (kind === type.readyForQuery) {
      if (!this.isLetIn) throw new ProtocolViolation("The server has become ready without an authentication")
      this.isStarting = false
    }
  }

  private authenticating(kind: number): void {
    switch (kind) {
      case auth.ok:
        // Else a server that does not know the password would be taken for one that does.
        if (this.sasl === "asked") throw new ProtocolViolation("The server has not proven that it knows the password")
        this.isLetIn = true
        return
      case auth.cleartext:
        if (this.isSecret()) return
        throw new Error(
          "The server asks for the password in clear text, which is sent only over TLS with a verified certificate: " +
            "use ssl, or set allowCleartextPassword"
        )
      case auth.sasl:
        this.sasl = "asked"
        return
      case auth.saslFinal:
        this.sasl = "proven"
    }
  }
}

/** Watches over a connection of the driver's. Before it connects. */
export const guard = (connection: object, { allowCleartextPassword = false }: Config): void => {
  const guarded = connection as Connection
  const attach = guarded.attachListeners
  const sendPassword = guarded.password
  let hasFailed = false
  const fail = (error: Error) => {
    hasFailed = true
    guarded.emit("error", error)
    guarded.stream.destroy()
  }
  guarded.attachListeners = (stream) => {
    const isSecret = () => allowCleartextPassword || (stream as { readonly authorized?: boolean }).authorized === true
    const held = new Held(ofProcess)
    const frames = new Frames(new Conversation(isSecret, held))
    stream.on("close", () => held.clear())
    const read = (listener: (chunk: Buffer) => void) => (chunk: Buffer) => {
      if (hasFailed) return
      try {
        frames.take(chunk, listener)
      } catch (error) {
        fail(error instanceof Error ? error : new Error(String(error)))
      }
    }
    attach.call(guarded, {
      on: (event: string, listener: (chunk: Buffer) => void) =>
        stream.on(event, event === "data" ? read(listener) : listener)
    } as Source)
  }
  // The driver calls this without a password from a callback of its own, where it would throw.
  guarded.password = (text) => {
    if (typeof text === "string") sendPassword.call(guarded, text)
    else fail(new Error("The server asks for a password: the client password must be a string"))
  }
}

/** A client of the driver's that a server can do no harm with. */
export const makeClient = (config: Config): Pg.Client => {
  const client = new Pg.Client(config)
  if (config.parameters !== undefined) {
    // The driver takes the address's options in place of any that it is given beside it.
    const { connectionParameters: to } = client as unknown as { readonly connectionParameters: { options?: string } }
    to.options = to.options === undefined ? config.parameters : `${config.parameters} ${to.options}`
  }
  guard((client as unknown as { readonly connection: object }).connection, config)
  return client
}
