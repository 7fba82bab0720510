import type { SqlClient, SqlError } from "@effect/sql"
import type { PgClient } from "@effect/sql-pg"
import { type Context, Effect, Layer, Logger, LogLevel, type Option, Tracer } from "effect"
import { Consistency, DbRouter, type RouterConfig, type RouterError } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as Pg from "pg"
import { logRoutesIfAsked } from "./logRoutes.js"

export { PgCluster }

/** The driver's own way to read a type. */
export const defaultTypeParser = Pg.types.getTypeParser

/** Options of a router over the test cluster, and what all its engines have in common. */
export interface Options extends Partial<RouterConfig.Options> {
  readonly engine?: Partial<RouterConfig.EngineConfig>
}

export type Services = PgCluster.PgCluster | DbRouter.DbRouter | SqlClient.SqlClient | PgClient.PgClient

/** One primary and two standbys that write every statement they run to their logs: see {@link ranOn}. */
export const cluster = PgCluster.layer({ replicas: 2, settings: { log_statement: "all" } })

/**
 * The options of a router over a cluster: `default` and `read`, and two groups to bind to: `analytics`, a pool of its own
 * on the second replica, and `archive`, one on the primary.
 */
export const optionsFor = (cluster: PgCluster.Cluster, { engine, ...options }: Options = {}): RouterConfig.Options => {
  const at = (node: PgCluster.Node, name = node.name) => ({ ...engine, url: node.url, name })
  return {
    groups: {
      default: [at(cluster.primary)],
      read: cluster.replicas.map((node) => at(node)),
      analytics: [at(cluster.replicas.at(-1)!, "analytics1")],
      archive: [at(cluster.primary, "archive1")]
    },
    // Most tests are about where statements go, and follow Advanced Alchemy's rule.
    consistency: Consistency.sticky(),
    ...options
  }
}

/** Another router over the cluster in the context. */
export const router = (
  options?: Options
): Layer.Layer<DbRouter.Services, RouterError.RouterConfigError | SqlError.SqlError, PgCluster.PgCluster> =>
  Layer.unwrapEffect(Effect.map(PgCluster.PgCluster, (cluster) => DbRouter.layer(optionsFor(cluster, options)))).pipe(
    // Tests take engines away on purpose.
    Layer.provideMerge(Logger.minimumLogLevel(LogLevel.Error)),
    Layer.provideMerge(logRoutesIfAsked)
  )

/** A cluster and a router over it. */
export const layer = (
  options?: Options
): Layer.Layer<Services, PgCluster.PgClusterError | RouterError.RouterConfigError | SqlError.SqlError> =>
  Layer.provideMerge(router(options), cluster)

let spanIds = 0

export class TestSpan implements Tracer.Span {
  readonly _tag = "Span"
  readonly spanId = String(++spanIds)
  readonly traceId = "test"
  readonly sampled = true
  readonly attributes = new Map<string, unknown>()
  /** The names of its events, in their order. */
  readonly events: Array<string> = []
  status: Tracer.SpanStatus

  constructor(
    readonly name: string,
    readonly parent: Option.Option<Tracer.AnySpan>,
    readonly context: Context.Context<never>,
    readonly links: ReadonlyArray<Tracer.SpanLink>,
    readonly kind: Tracer.SpanKind,
    startTime: bigint
  ) {
    this.status = { _tag: "Started", startTime }
  }

  end(endTime: bigint, exit: Extract<Tracer.SpanStatus, { _tag: "Ended" }>["exit"]): void {
    this.status = { _tag: "Ended", startTime: this.status.startTime, endTime, exit }
  }
  attribute(key: string, value: unknown): void {
    this.attributes.set(key, value)
  }
  event(name: string): void {
    this.events.push(name)
  }
  addLinks(): void {}
}

/** What the span of one statement says. */
export interface Executed {
  readonly sql: string
  readonly operation: unknown
  readonly group: unknown
  readonly engine: unknown
  readonly kind: unknown
  readonly reason: unknown
  readonly observed: { readonly group: unknown; readonly engine: unknown } | undefined
  readonly span: Tracer.Span
}

const executedOf = (span: Tracer.Span): Executed => {
  const at = (key: string) => span.attributes.get(key)
  const group = at("db.router.observed.group")
  return {
    sql: String(at("db.query.text")),
    operation: at("db.operation.name"),
    group: at("db.router.group"),
    engine: at("db.router.engine"),
    kind: at("db.router.kind"),
    reason: at("db.router.reason"),
    observed: group === undefined ? undefined : { group, engine: at("db.router.observed.engine") },
    span
  }
}

/** Runs an effect and tells which spans it has started, in their order. */
export const spansOf = <A, E, R>(
  effect: Effect.Effect<A, E, R>
): Effect.Effect<readonly [A, ReadonlyArray<TestSpan>], E, R> =>
  Effect.suspend(() => {
    const spans: Array<TestSpan> = []
    const tracer = Tracer.make({
      span: (name, parent, context, links, startTime, kind) => {
        const span = new TestSpan(name, parent, context, links, kind, startTime)
        spans.push(span)
        return span
      },
      context: (f) => f()
    })
    return Effect.map(Effect.withTracer(effect, tracer), (value) => [value, spans] as const)
  })

/** Runs an effect and tells what the spans of its statements say, in their order. */
export const traced = <A, E, R>(
  effect: Effect.Effect<A, E, R>
): Effect.Effect<readonly [A, ReadonlyArray<Executed>], E, R> =>
  Effect.map(
    spansOf(effect),
    ([value, spans]) => [value, spans.filter((span) => span.name === "sql.execute").map(executedOf)] as const
  )

/** The engines that the statements of an effect went to, in their order. */
export const enginesOf = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<ReadonlyArray<unknown>, E, R> =>
  Effect.map(traced(effect), ([, statements]) => statements.map((statement) => statement.engine))

/**
 * The servers whose logs have a text, such as a comment in a statement: the servers' own word for what they ran. A name
 * appears once for every time.
 */
export const ranOn = (
  text: string
): Effect.Effect<ReadonlyArray<string>, PgCluster.PgClusterError, PgCluster.PgCluster> =>
  Effect.flatMap(PgCluster.PgCluster, ({ nodes }) =>
    Effect.map(
      Effect.forEach(nodes, (node) =>
        Effect.map(node.log, (log) =>
          log
            .split("\n")
            .filter((line) => line.includes("LOG:") && line.includes(text))
            .map(() => node.name)
        )
      ),
      (names) => names.flat()
    )
  )

/** Waits until the replicas have everything that was written so far, and puts the flow's routing back to the defaults. */
export const settle: Effect.Effect<void, PgCluster.PgClusterError, PgCluster.PgCluster> = Effect.flatMap(
  PgCluster.PgCluster,
  (cluster) => Effect.zipRight(cluster.awaitReplayed, DbRouter.reset)
)
