/** What a statement really does, by what PostgreSQL says of its transaction. */
import { Effect, Redacted } from "effect"
import { PgCluster } from "effect-db-router/testing"
import pg from "pg"

/** A client of the primary, without the library, until the scope closes. */
export const connect = Effect.flatMap(PgCluster.PgCluster, ({ primary }) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const client = new pg.Client({ connectionString: Redacted.value(primary.url) })
      await client.connect()
      return client
    }),
    (client) => Effect.promise(() => client.end())
  )
)

/** Whether a statement writes, or what keeps it from running. A value stands behind ` ## `. `role`: who runs it. */
export const writes = (client: pg.Client, line: string, role?: string): Effect.Effect<boolean | string> =>
  Effect.promise(async () => {
    const [text = "", value] = line.split(" ## ")
    await client.query("begin")
    try {
      if (role !== undefined) await client.query(`set local role ${role}`)
      await client.query(value === undefined ? text : { text, values: [value] })
      const { rows } = await client.query("select pg_current_xact_id_if_assigned() is not null as wrote")
      return rows[0].wrote as boolean
    } catch (error) {
      return String(error)
    } finally {
      await client.query("rollback")
    }
  })
