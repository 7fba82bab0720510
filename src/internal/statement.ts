import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import * as Statement from "@effect/sql/Statement"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type * as Tracer from "effect/Tracer"

type TransformRows = (<A extends object>(row: ReadonlyArray<A>) => ReadonlyArray<A>) | undefined

interface StatementClass {
  new (
    segments: ReadonlyArray<Statement.Segment>,
    acquirer: Connection.Acquirer,
    compiler: Statement.Compiler,
    spanAttributes: ReadonlyArray<readonly [string, unknown]>,
    transformRows: TransformRows
  ): Statement.Statement<object>
}

/** How the rows of a routed statement are streamed. */
export type StreamRows = (
  span: Tracer.Span,
  sql: string,
  params: ReadonlyArray<unknown>,
  transformRows: TransformRows
) => Stream.Stream<object, SqlError>

export interface Options {
  readonly acquirer: Connection.Acquirer
  readonly compiler: Statement.Compiler
  readonly spanAttributes: ReadonlyArray<readonly [string, unknown]>
  readonly transformRows: TransformRows
  readonly stream: StreamRows
}

/**
 * The constructor of `@effect/sql`, making statements whose `stream` knows its span. There the span of a stream is in
 * nobody's context, so a connection could not say on it where the statement went.
 */
export const make = (options: Options): Statement.Constructor => {
  const { acquirer, compiler, spanAttributes, stream, transformRows } = options
  const base = Statement.make(acquirer, compiler, spanAttributes, transformRows)
  const Base = base``.constructor as unknown as StatementClass

  class RoutedStatement extends Base {
    override get stream(): Stream.Stream<object, SqlError> {
      return Stream.unwrapScoped(
        Effect.flatMap(Effect.makeSpanScoped("sql.execute", { kind: "client", captureStackTrace: false }), (span) =>
          Effect.map(transformed(this, base, span), (statement) => {
            const [sql, params] = statement.compile()
            for (const [key, value] of spanAttributes) span.attribute(key, value)
            span.attribute("db.operation.name", "executeStream")
            span.attribute("db.query.text", sql)
            return stream(span, sql, params, transformRows)
          })
        )
      )
    }
  }

  const routed = (statement: Statement.Statement<object>) =>
    new RoutedStatement(statement.segments, acquirer, compiler, spanAttributes, transformRows)

  const constructor = (strings: unknown, ...args: Array<unknown>) => {
    const made = (base as unknown as (...all: Array<unknown>) => unknown)(strings, ...args)
    return made instanceof Base ? routed(made) : made
  }
  return Object.assign(constructor, base, {
    unsafe: (sql: string, params?: ReadonlyArray<unknown>) => routed(base.unsafe<object>(sql, params as Array<never>))
  }) as unknown as Statement.Constructor
}

/** Applies the transformer that `Statement.withTransformer` has set, as every other way to run a statement does. */
const transformed = (
  statement: Statement.Statement<object>,
  sql: Statement.Constructor,
  span: Tracer.Span
): Effect.Effect<Statement.Statement<object>> =>
  Effect.withFiberRuntime((fiber) => {
    const transformer = fiber.getFiberRef(Statement.currentTransformer)
    return transformer._tag === "None"
      ? Effect.succeed(statement)
      : (transformer.value(statement, sql, fiber.getFiberRefs(), span) as Effect.Effect<Statement.Statement<object>>)
  })
