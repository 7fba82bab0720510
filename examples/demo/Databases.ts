/**
 * Where the servers are: in `DATABASE_URL` and `DATABASE_REPLICA_URLS`, or in a cluster that is started for the demo.
 */
import { Config, ConfigProvider, Effect, Option, Redacted } from "effect"
import { PgCluster } from "effect-db-router/testing"

const isSet = (variable: string) => Effect.map(Config.option(Config.nonEmptyString(variable)), Option.isSome)

/** Whether the environment names servers, or a part of them. */
export const areGiven = Effect.map(
  Effect.all([isSet("DATABASE_URL"), isSet("DATABASE_REPLICA_URLS")]),
  ([primary, replicas]) => primary || replicas
)

const urlOf = ({ name, url }: PgCluster.Node) => `${Redacted.value(url)}?name=${name}`

/**
 * Starts a primary and two streaming standbys, which stop when the scope closes. They are made known as any other servers
 * would be, by environment variables, so that the application has one configuration only.
 */
export const start = Effect.gen(function* () {
  const environment = yield* Effect.configProviderWith(Effect.succeed)
  const { primary, replicas } = yield* PgCluster.make({ replicas: 2 })
  const cluster = new Map([
    ["DATABASE_URL", urlOf(primary)],
    ["DATABASE_REPLICA_URLS", replicas.map(urlOf).join(",")]
  ])
  return ConfigProvider.orElse(ConfigProvider.fromMap(cluster), () => environment)
})
