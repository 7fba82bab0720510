/**
 * Where the servers are: in `DATABASE_URL` and `DATABASE_REPLICA_URLS`, or in a cluster that is started for the demo.
 */
import { Config, ConfigProvider, Effect, Option, Redacted } from "effect"
import { PgCluster } from "effect-db-router/testing"

const isSet = (variable: string) => Effect.map(Config.option(Config.nonEmptyString(variable)), Option.isSome)

/** The environment names servers, or a part of them. */
export const areGiven = Effect.map(
  Effect.all([isSet("DATABASE_URL"), isSet("DATABASE_REPLICA_URLS")]),
  ([primary, replicas]) => primary || replicas
)

const urlOf = ({ name, url }: PgCluster.Node) => `${Redacted.value(url)}?name=${name}`

/** Short intervals: the effect of a button is to be seen at once. */
const watchful = new Map([
  ["DB_ROUTER_HEALTH_INTERVAL", "500 millis"],
  ["DB_ROUTER_HEALTH_MAX_LAG", "3 seconds"],
  ["DB_ROUTER_WAIT_FOR_PRIMARY_STATEMENTS", "10 seconds"]
])

/**
 * Starts a primary and two streaming standbys, which stop when the scope closes. They are made known as any other servers
 * would be, by environment variables, so that the application has one configuration only.
 */
export const start = Effect.gen(function* () {
  const environment = yield* Effect.configProviderWith(Effect.succeed)
  const cluster = yield* PgCluster.make({ replicas: 2 })
  const urls = new Map([
    ["DATABASE_URL", urlOf(cluster.primary)],
    ["DATABASE_REPLICA_URLS", cluster.replicas.map(urlOf).join(",")]
  ])
  return {
    cluster,
    environment: ConfigProvider.fromMap(urls).pipe(
      ConfigProvider.orElse(() => environment),
      ConfigProvider.orElse(() => ConfigProvider.fromMap(watchful))
    )
  }
})
