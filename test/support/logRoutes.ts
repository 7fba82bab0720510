import { type Context, Layer, type Option, Tracer } from "effect"
import { Telemetry } from "effect-db-router"

const { engine, failed, group, kind, reason, rule } = Telemetry.attributes

/** What a span says of a statement, on one line: `read/replica1 (read, read): SELECT ... -- plain SELECT`. */
export const routeOf = (attributes: ReadonlyMap<string, unknown>): string => {
  const at = (name: string) => String(attributes.get(name) ?? "-")
  const left = attributes.get(failed)
  const moved = left === undefined ? "" : `, after ${left}`
  const sql = at("db.query.text").replace(/\s+/g, " ").trim()
  return `${at(group)}/${at(engine)} (${at(kind)}, ${at(rule)}${moved}): ${sql} -- ${at(reason)}`
}

class StatementSpan implements Tracer.Span {
  readonly _tag = "Span"
  readonly spanId = "0000000000000000"
  readonly traceId = "00000000000000000000000000000000"
  readonly sampled = true
  readonly attributes = new Map<string, unknown>()
  status: Tracer.SpanStatus

  constructor(
    readonly name: string,
    readonly parent: Option.Option<Tracer.AnySpan>,
    readonly context: Context.Context<never>,
    readonly links: ReadonlyArray<Tracer.SpanLink>,
    startTime: bigint,
    readonly kind: Tracer.SpanKind,
    private readonly print: (line: string) => void
  ) {
    this.status = { _tag: "Started", startTime }
  }

  end(endTime: bigint, exit: Extract<Tracer.SpanStatus, { _tag: "Ended" }>["exit"]): void {
    this.status = { _tag: "Ended", startTime: this.status.startTime, endTime, exit }
    if (this.name === "sql.execute") this.print(routeOf(this.attributes))
  }

  attribute(key: string, value: unknown): void {
    this.attributes.set(key, value)
  }

  event(): void {}

  addLinks(): void {}
}

/** Prints where each statement went and why, at its end. In place of the tracer. */
export const logRoutes = (print: (line: string) => void = console.log): Layer.Layer<never> =>
  Layer.setTracer(
    Tracer.make({
      span: (name, parent, context, links, startTime, kind) =>
        new StatementSpan(name, parent, context, links, startTime, kind, print),
      context: (run) => run()
    })
  )

/** The same where the variable `LOG_ROUTES` is set. */
export const logRoutesIfAsked: Layer.Layer<never> = process.env.LOG_ROUTES === undefined ? Layer.empty : logRoutes()
