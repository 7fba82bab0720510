import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import * as Statement from "@effect/sql/Statement"
import * as Context from "effect/Context"
import * as DefaultServices from "effect/DefaultServices"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import { run as runTrip, Trip } from "../telemetry/statementRun.js"

type TransformRows = (<A extends object>(row: ReadonlyArray<A>) => ReadonlyArray<A>) | undefined

type Rows = Effect.Effect<ReadonlyArray<object>, SqlError>

/** A statement as `@effect/sql` makes it; `commit` is what runs when the statement itself is the effect. */
interface BaseStatement extends Statement.Statement<object> {
  commit(): Rows
}

interface StatementClass {
  new (
    segments: ReadonlyArray<Statement.Segment>,
    acquirer: Connection.Acquirer,
    compiler: Statement.Compiler,
    spanAttributes: ReadonlyArray<readonly [string, unknown]>,
    transformRows: TransformRows
  ): BaseStatement
}

export interface Options {
  /** The connection for one statement, which says on its trip where it went. */
  readonly connection: (trip: Trip | undefined) => Connection
  readonly compiler: Statement.Compiler
  readonly spanAttributes: ReadonlyArray<readonly [string, unknown]>
  readonly transformRows: TransformRows
}

const spanName = "sql.execute"
const spanOptions = { kind: "client", captureStackTrace: false } as const
const makeSpan = Effect.makeSpan(spanName, spanOptions)

/** The tracer of programs that have none. It keeps its spans for those who find them in their context. */
const noTracer = Context.get(DefaultServices.liveServices, Tracer.Tracer)

/** A tracer or a transformer can see the span of a statement, which is in no fiber's context. */
const showsSpan = (fiber: Fiber.RuntimeFiber<unknown, unknown>): boolean =>
  Context.get(fiber.currentDefaultServices, Tracer.Tracer) !== noTracer ||
  fiber.getFiberRef(Statement.currentTransformer)._tag === "Some"

/**
 * The constructor of `@effect/sql`, making statements that tell their connection their span. Without that the span is in no
 * fiber's context, so a connection could not record the route on it.
 */
export const make = (options: Options): Statement.Constructor => {
  const { compiler, connection, spanAttributes, transformRows } = options
  const acquirer = Effect.succeed(connection(undefined))
  const base = Statement.make(acquirer, compiler, spanAttributes, transformRows)
  const Base = base``.constructor as unknown as StatementClass

  /** Compiles a statement, after the transformer that `Statement.withTransformer` may have set. */
  const compiled = <A, E>(
    statement: Statement.Statement<object>,
    fiber: Fiber.RuntimeFiber<unknown, unknown>,
    span: Tracer.Span | undefined,
    operation: string,
    withoutTransform: boolean,
    run: (sql: string, params: ReadonlyArray<unknown>) => Effect.Effect<A, E>
  ): Effect.Effect<A, E> => {
    const go = (statement: Statement.Statement<object>) => {
      const [sql, params] = statement.compile(withoutTransform)
      if (span !== undefined) {
        for (const [key, value] of spanAttributes) span.attribute(key, value)
        span.attribute("db.operation.name", operation)
        span.attribute("db.query.text", sql)
      }
      return run(sql, params)
    }
    const transformer = fiber.getFiberRef(Statement.currentTransformer)
    return transformer._tag === "None"
      ? go(statement)
      : Effect.flatMap(
          transformer.value(statement, constructor, fiber.getFiberRefs(), span!) as Effect.Effect<typeof statement>,
          go
        )
  }

  class RoutedStatement extends Base {
    override get withoutTransform(): Rows {
      return this.run("executeWithoutTransform", true, (on, sql, params) => on.execute(sql, params, undefined))
    }

    override get raw(): Effect.Effect<unknown, SqlError> {
      return this.run("executeRaw", true, (on, sql, params) => on.executeRaw(sql, params))
    }

    override get values(): Effect.Effect<ReadonlyArray<ReadonlyArray<unknown>>, SqlError> {
      return this.run("executeValues", false, (on, sql, params) => on.executeValues(sql, params))
    }

    override get unprepared(): Rows {
      return this.run("executeUnprepared", false, (on, sql, params) => on.executeUnprepared(sql, params, transformRows))
    }

    override commit(): Rows {
      return this.run("execute", false, (on, sql, params) => on.execute(sql, params, transformRows))
    }

    override get stream(): Stream.Stream<object, SqlError> {
      const rows = (span?: Tracer.Span) =>
        Effect.withFiberRuntime<Stream.Stream<object, SqlError>>((fiber) =>
          compiled(this, fiber, span, "executeStream", false, (sql, params) =>
            Effect.succeed(connection(new Trip(fiber, span)).executeStream(sql, params, transformRows))
          )
        )
      return Stream.unwrapScoped(
        Effect.withFiberRuntime<Stream.Stream<object, SqlError>, never, Scope.Scope>((fiber) =>
          showsSpan(fiber) ? Effect.flatMap(Effect.makeSpanScoped(spanName, spanOptions), rows) : rows()
        )
      )
    }

    private run<A>(
      operation: string,
      withoutTransform: boolean,
      execute: (on: Connection, sql: string, params: ReadonlyArray<unknown>) => Effect.Effect<A, SqlError>
    ): Effect.Effect<A, SqlError> {
      return Effect.withFiberRuntime((fiber) =>
        runTrip(fiber, showsSpan(fiber) ? makeSpan : undefined, (trip) =>
          compiled(this, fiber, trip.span, operation, withoutTransform, (sql, params) =>
            execute(connection(trip), sql, params)
          )
        )
      )
    }
  }

  const routed = (statement: Statement.Statement<object>) =>
    new RoutedStatement(statement.segments, acquirer, compiler, spanAttributes, transformRows)

  const fromTemplate = (strings: unknown, ...args: Array<unknown>) => {
    const made = (base as unknown as (...all: Array<unknown>) => unknown)(strings, ...args)
    return made instanceof Base ? routed(made) : made
  }
  const constructor = Object.assign(fromTemplate, base, {
    unsafe: (sql: string, params?: ReadonlyArray<unknown>) => routed(base.unsafe<object>(sql, params as Array<never>))
  }) as unknown as Statement.Constructor
  return constructor
}
