/** Row-level security: a session's settings say whose rows it sees, on every server. */
// #region usage
import { SqlClient } from "@effect/sql"
import { Effect } from "effect"
import { DbRouter } from "effect-db-router"

// After the session the setting is '', not NULL.
const schema = `
  CREATE TABLE doc (tenant text NOT NULL, title text NOT NULL);
  ALTER TABLE doc ENABLE ROW LEVEL SECURITY;
  CREATE POLICY own ON doc USING (tenant = nullif(current_setting('app.tenant', true), ''));
  CREATE ROLE app LOGIN PASSWORD 'app';
  GRANT SELECT, INSERT ON doc TO app`

/** Sends what an effect does as that tenant, reads on replicas included. */
const asTenant = (tenant: string) => DbRouter.session({ settings: { "app.tenant": tenant } })

const titles = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql<{ title: string }>`SELECT title, current_setting('cluster_name') AS server FROM doc`
)

const add = (tenant: string, title: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO doc VALUES (${tenant}, ${title})`)

const program = Effect.gen(function* () {
  yield* add("acme", "Plans").pipe(asTenant("acme"))
  yield* add("umbrella", "Recipes").pipe(asTenant("umbrella"))
  const forged = yield* Effect.either(add("acme", "Forged").pipe(asTenant("umbrella"))) // the policy refuses it
  return {
    acme: yield* titles.pipe(asTenant("acme")),
    withoutTenant: yield* titles, // no session: no rows
    forged: forged._tag
  }
})

// #endregion usage

import { Layer, Redacted } from "effect"
import { PgCluster } from "effect-db-router/testing"
import { ClusterEnvironment } from "../support/cluster.js"
import { report } from "../support/report.js"

// Row-level security is not for superusers, which is what the cluster's own user is.
const Database = Layer.unwrapEffect(
  Effect.map(PgCluster.PgCluster, ({ database, primary, replicas }) => {
    const engine = ({ host, name, port }: PgCluster.Node) => ({
      ...{ name, host, port, database, username: "app", password: Redacted.make("app") }
    })
    return DbRouter.layer({ groups: { default: [engine(primary)], read: replicas.map(engine) } })
  })
)

await Effect.gen(function* () {
  const { awaitReplayed, primary } = yield* PgCluster.PgCluster
  yield* primary.query(schema)
  yield* awaitReplayed
  const { acme, forged, withoutTenant } = yield* Effect.provide(program, Database)
  yield* report("acme sees", acme, acme.length === 1 && acme[0]!.title === "Plans")
  yield* report("Without a tenant", `${withoutTenant.length} rows`, withoutTenant.length === 0)
  yield* report("A row of another tenant is refused", forged, forged === "Left")
}).pipe(Effect.provide(ClusterEnvironment), Effect.scoped, Effect.runPromise)
