import { Redacted } from "effect"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { PgCluster } from "effect-db-router/testing"

/** A row as a client finds it by its primary key. */
export interface Found {
  readonly id: number
  readonly name: string
}

/** Finds a row by its primary key, in one statement. */
export type Find = (id: number) => PromiseLike<Found | null | undefined>

/** The servers for one client. What it runs there is known by the name of its connections. */
export interface Servers {
  readonly application: string
  readonly primary: string
  readonly replica: string
  /** Connections to each of them, at most. */
  readonly poolSize: number
}

/** A client that others use, set up as its documentation says. */
export interface Other {
  readonly name: string
  /** How many times as fast as it the router is to be. */
  readonly atLeast: number
  readonly connect: (servers: Servers) => Effect.Effect<Find, Error, Scope.Scope>
}

/** The URL of a server, for a client whose connections have a name. */
export const urlOf = ({ url }: PgCluster.Node, application: string): string => {
  const named = new URL(Redacted.value(url))
  named.searchParams.set("application_name", application)
  return named.href
}

/** The parts of a URL, for clients that do not take one. */
export const partsOf = (url: string) => {
  const { hostname, password, pathname, port, username } = new URL(url)
  return {
    host: hostname,
    port: Number(port),
    username: decodeURIComponent(username),
    password: decodeURIComponent(password),
    database: pathname.slice(1)
  }
}
