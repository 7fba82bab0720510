import * as Reactivity from "@effect/experimental/Reactivity"
import * as SqlClient from "@effect/sql/SqlClient"
import * as Statement from "@effect/sql/Statement"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Effect from "effect/Effect"
import type * as PubSub from "effect/PubSub"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import type { Engine } from "../../Engine.js"
import type * as Health from "../../Health.js"
import * as RoutingContext from "../../RoutingContext.js"
import { onThePrimary, type Router } from "../routing/router.js"
import * as listen from "./listen.js"
import { reactive } from "./reactive.js"
import { PrimaryConnection, type TransformRows } from "./routedConnection.js"
import * as RoutedStatement from "./statement.js"
import { Runner } from "./transactionRunner.js"

/** The routed client: everything that `SqlClient` and `PgClient` promise. */
export const make = (
  router: Router,
  events: PubSub.PubSub<Health.Event>
): Effect.Effect<
  { readonly client: PgClient.PgClient; readonly primaryClient: PgClient.PgClient; readonly runner: Runner },
  never,
  Reactivity.Reactivity | Scope.Scope
> =>
  Effect.gen(function* () {
    const runner = new Runner(router)
    yield* Effect.addFinalizer(() => router.close)
    const reactivity = yield* Reactivity.Reactivity
    const primary = router.primary
    const { transformJson, transformQueryNames, transformResultNames } = primary.client
    const compiler = PgClient.makeCompiler(transformQueryNames, transformJson)
    const transformRows = transformResultNames && Statement.defaultTransforms(transformResultNames, transformJson).array
    const { connection, spanAttributes } = runner
    const listenTo = yield* listen.make(router, events)
    const rest = {
      [SqlClient.TypeId as SqlClient.TypeId]: SqlClient.TypeId as SqlClient.TypeId,
      [PgClient.TypeId as PgClient.TypeId]: PgClient.TypeId as PgClient.TypeId,
      config: configOf(primary),
      withTransaction: runner.withTransaction,
      reserve: runner.reserve,
      ...reactive(reactivity),
      json: (value: unknown) => pgJson(value, undefined, undefined),
      listen: listenTo,
      notify: (channel: string, payload: string) =>
        plain.unsafe("SELECT pg_notify($1, $2)", [channel, payload]).unprepared.pipe(
          Statement.withTransformerDisabled,
          // Where `listen` listens, whatever the fiber is bound to.
          RoutingContext.locally({ _tag: "Group", name: router.config.defaultGroup }),
          Effect.asVoid
        )
    }
    /** A client with a way for its statements, and one of the same that transforms nothing. */
    const clientOn = (connection: RoutedStatement.Options["connection"], rest: object) => {
      const statements = (compiler: Statement.Compiler, transformRows: TransformRows) =>
        RoutedStatement.make({ connection, compiler, spanAttributes, transformRows })
      const assemble = (sql: Statement.Constructor, withoutTransforms: () => PgClient.PgClient): PgClient.PgClient => {
        const client = Object.assign(sql, rest, { withoutTransforms, safe: undefined as unknown })
        client.safe = client
        return client as unknown as PgClient.PgClient
      }
      const plain: PgClient.PgClient =
        transformRows === undefined && transformQueryNames === undefined
          ? assemble(statements(compiler, undefined), () => plain)
          : assemble(statements(compiler.withoutTransform, undefined), () => plain)
      const client =
        transformRows === undefined && transformQueryNames === undefined
          ? plain
          : assemble(statements(compiler, transformRows), () => plain)
      return { client, plain }
    }
    const { client, plain } = clientOn(connection, rest)
    const { client: primaryClient } = clientOn((trip) => new PrimaryConnection(connection(trip)), {
      ...rest,
      withTransaction: <A, E, R>(effect: Effect.Effect<A, E, R>) => onThePrimary(runner.withTransaction(effect)),
      reserve: onThePrimary(runner.reserve)
    })
    return { client, primaryClient, runner }
  })

// `@effect/sql-pg` does not export its own; its compiler knows the fragment by this name.
const pgJson = Statement.custom<Statement.Custom<"PgJson", unknown>>("PgJson")

// As `@effect/sql-pg` has it: what reads this (`pg_dump` of its migrator) knows nothing of URLs.
const configOf = ({ address, client }: Engine): PgClient.PgClientConfig => {
  const url = client.url === undefined ? undefined : new URL(Redacted.value(client.url))
  const username = client.username ?? (url?.username ? decodeURIComponent(url.username) : undefined)
  const password = client.password ?? (url?.password ? Redacted.make(decodeURIComponent(url.password)) : undefined)
  return {
    ...client,
    username,
    password,
    host: client.host ?? address.host,
    port: client.port ?? address.port,
    database: client.database ?? address.database
  }
}
