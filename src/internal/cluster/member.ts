import * as Path from "node:path"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { Lock } from "../util/lock.js"
import { PgClusterError } from "./error.js"
import * as Files from "./files.js"
import { inRealTime } from "./poll.js"
import * as Server from "./server.js"
import * as Settings from "./settings.js"
import * as Sql from "./sql.js"

/** A server with its place in the cluster. */
export interface Member {
  readonly name: string
  readonly server: Server.Server
  readonly connection: Settings.Connection
  readonly settings: Readonly<Record<string, string>>
  /** The server that it replicates from; `undefined` for the first primary and for a promoted server. */
  upstream: Member | undefined
  /** One thing at a time is done to a server. */
  readonly lock: Lock
}

/** A server that has no data directory yet. */
export const make = (options: {
  readonly name: string
  readonly home: Server.Home
  readonly connection: Settings.Connection
  readonly settings: Readonly<Record<string, string>>
  readonly upstream: Member | undefined
}): Member => ({
  name: options.name,
  server: Server.make(options.name, options.home),
  connection: options.connection,
  settings: options.settings,
  upstream: options.upstream,
  lock: new Lock()
})

/** Runs what changes a server: alone, and in real time. */
export const exclusively = <A, E>(member: Member, effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  inRealTime(member.lock.run(effect))

/** A connection to a database of a server that can answer. */
export const connect = (member: Member, database: string): Effect.Effect<Sql.Query, PgClusterError, Scope.Scope> =>
  Effect.zipRight(Server.running(member.server), Sql.connect(member.name, { ...member.connection, database }))

/** Uses a connection to the database that initdb makes: the cluster's own may not be there yet. */
export const administer = <A>(
  member: Member,
  use: (query: Sql.Query) => Effect.Effect<A, PgClusterError>
): Effect.Effect<A, PgClusterError> => Effect.scoped(Effect.flatMap(connect(member, "postgres"), use))

const passfile = (home: Server.Home): string => Path.join(home.directory, "passfile")

/** Writes the file by which standbys log in. */
export const writePassfile = (
  home: Server.Home,
  credentials: Pick<Settings.Connection, "username" | "password">
): Effect.Effect<void, PgClusterError> =>
  Files.writeFile(passfile(home), Settings.passwordFile(credentials), home.account)

/** Writes the server's configuration, with its present upstream. */
export const configure = (member: Member): Effect.Effect<void, PgClusterError> =>
  Files.writeFile(
    Path.join(member.server.data, "postgresql.conf"),
    Settings.render({
      name: member.name,
      port: member.connection.port,
      upstream: member.upstream?.connection,
      passfile: passfile(member.server.home),
      settings: member.settings
    }),
    member.server.home.account
  )

/** Marks the data directory as a standby's. */
export const markStandby = (member: Member): Effect.Effect<void, PgClusterError> =>
  Files.writeFile(Path.join(member.server.data, "standby.signal"), "", member.server.home.account)

/** An error about this server. */
export const failure = (member: Member, reason: PgClusterError["reason"], detail: string): PgClusterError =>
  new PgClusterError({ reason, node: member.name, detail })
