/**
 * How long things wait where no option says so. The table in docs/configuration.md has each of them, and a test holds the two
 * equal.
 */
import * as Duration from "effect/Duration"

/** For a connection, a new one or a free one, where the configuration does not say: `PgClient`'s own default. */
export const connect = Duration.seconds(5)

/** For a connection, by what `connectTimeout` says: `0` lets statements wait without a limit, and nothing else. */
export const connecting = (timeout = connect): Duration.Duration =>
  Duration.toMillis(timeout) === 0 ? connect : timeout

/** For a cancelled statement to end, before its connection is destroyed. */
export const cancel = Duration.seconds(5)

/** For an interrupted COMMIT, and for any ROLLBACK, before the connection is closed. */
export const end = Duration.seconds(5)

/** For the primary to say where it is, before the token says that it is not known. */
export const position = Duration.seconds(1)

/** For the catalog, and for its stamp. The first reading may come from a server that has just started. */
export const catalog = Duration.seconds(10)
export const firstCatalog = Duration.seconds(30)

/** For the next byte of a request's body, while its session holds a connection: less than others wait for one. */
export const body = Duration.seconds(3)

/** For an Effect that yields an engine's configuration, when it runs again. */
export const configuration = Duration.seconds(5)

/** For what is read again before a session, where the topology does not say. */
export const beforeSession = Duration.seconds(5)

/** For the servers to hear, when the layer's close has cut off what still ran. */
export const cut = Duration.seconds(1)

/**
 * For a connection on which nothing comes, before TCP asks whether its other end is still there. A host that has restarted
 * says no at once; one that is gone is given up after ten questions, a second apart (libuv's).
 */
export const keepAlive = Duration.seconds(10)
