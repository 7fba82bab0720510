import { Effect } from "effect"
import { Kysely, PostgresDialect } from "kysely"
import { KyselyReplicationDialect } from "kysely-replication"
import { RoundRobinReplicaStrategy } from "kysely-replication/strategy/round-robin"
import type { Other } from "./Other.js"
import { pools } from "./Pools.js"

interface Database {
  readonly item: { readonly id: number; readonly name: string; readonly price: string; readonly in_stock: boolean }
}

/** Kysely has no prepared statements. */
export const kysely: Other = {
  name: "kysely-replication on pg",
  atLeast: 1.3,
  connect: (servers) =>
    Effect.map(pools(servers), ({ primary, replica }) => {
      const db = new Kysely<Database>({
        dialect: new KyselyReplicationDialect({
          primaryDialect: new PostgresDialect({ pool: primary }),
          replicaDialects: [new PostgresDialect({ pool: replica })],
          replicaStrategy: new RoundRobinReplicaStrategy({ onTransaction: "error" })
        })
      })
      return (id) =>
        db.selectFrom("item").select(["id", "name", "price", "in_stock"]).where("id", "=", id).executeTakeFirst()
    })
}
