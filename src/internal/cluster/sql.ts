import * as Net from "node:net"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Pg from "pg"
import { PgClusterError } from "./error.js"
import type { Connection } from "./settings.js"

/** Rows of one statement. */
export type Query = <A extends object = Record<string, unknown>>(
  sql: string,
  parameters?: ReadonlyArray<unknown>
) => Effect.Effect<ReadonlyArray<A>, PgClusterError>

const failed = (node: string, doing: string, cause: unknown): PgClusterError =>
  new PgClusterError({
    reason: "QueryFailed",
    node,
    detail: `${doing} failed: ${cause instanceof Error ? cause.message : String(cause)}`,
    cause
  })

interface Session {
  readonly client: Pg.Client
  /** Ours, so that a connection to a server that never answers can be dropped. */
  readonly socket: Net.Socket
}

const end = ({ client, socket }: Session): Effect.Effect<void> =>
  Effect.async<void>((resume) => {
    const done = () => {
      clearTimeout(timer)
      socket.destroy()
      resume(Effect.void)
    }
    // A server that stands still never says goodbye.
    const timer = setTimeout(done, 500)
    client.end().then(done, done)
  })

/** A connection of its own, closed with the scope; one whose query was interrupted is dropped. */
export const connect = (node: string, connection: Connection): Effect.Effect<Query, PgClusterError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync((): Session => {
      const socket = new Net.Socket()
      const client = new Pg.Client({
        host: connection.host,
        port: connection.port,
        database: connection.database,
        user: connection.username,
        password: connection.password,
        application_name: "PgCluster",
        ssl: false,
        connectionTimeoutMillis: 10_000,
        stream: () => socket
      })
      // What ends a connection also fails its query; without a listener it would end the program.
      client.on("error", () => {})
      return { client, socket }
    }),
    end
  ).pipe(
    Effect.tap(({ client }) =>
      Effect.tryPromise({ try: () => client.connect(), catch: (cause) => failed(node, "Connecting", cause) })
    ),
    Effect.map(
      ({ client }): Query =>
        <A extends object>(sql: string, parameters: ReadonlyArray<unknown> = []) =>
          Effect.map(
            Effect.tryPromise({
              try: () => client.query<A>(sql, [...parameters]),
              catch: (cause) => failed(node, `The query ${JSON.stringify(sql)}`, cause)
            }),
            (result) => result.rows
          )
    )
  )
