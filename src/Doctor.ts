/**
 * Looks at the servers of a configuration as the router would use them, and says what is wrong or could be better, and what to
 * do: what `npx effect-db-router check` prints. It changes nothing on the servers.
 *
 * ```ts
 * import { Doctor, RouterConfig } from "effect-db-router"
 * import { Console, Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const report = yield* Doctor.check(yield* RouterConfig.fromEnv, { instances: 4 })
 *   yield* Console.log(Doctor.render(report))
 * })
 * ```
 *
 * @since 0.1.0
 */
import type * as Effect from "effect/Effect"
import type { DbRouter } from "./internal/client/service.js"
import * as checking from "./internal/doctor/check.js"
import * as explaining from "./internal/doctor/explain.js"
import * as rendering from "./internal/doctor/render.js"
import type * as model from "./internal/doctor/report.js"
import type * as RouterConfig from "./RouterConfig.js"
import type { RouterConfigError } from "./RouterError.js"

/**
 * - `ok`: nothing to do
 * - `warning`: it works, and could work better, or will not always
 * - `problem`: something is not used, or fails
 *
 * @since 0.1.0
 * @category models
 */
export type Level = model.Level

/**
 * The subject of a finding. These names stay the same from version to version.
 *
 * @since 0.1.0
 * @category models
 */
export type Code = model.Code

/**
 * One thing that was found: what, of which engine, and what to do.
 *
 * @since 0.1.0
 * @category models
 */
export interface Finding extends model.Finding {}

/**
 * The findings of one engine.
 *
 * @since 0.1.0
 * @category models
 */
export interface Server extends model.Server {}

/**
 * The lag of a replica behind the primary.
 *
 * @since 0.1.0
 * @category models
 */
export interface Lag extends model.Lag {}

/**
 * The difference between a server's clock and this machine's.
 *
 * @since 0.1.0
 * @category models
 */
export interface Skew extends model.Skew {}

/**
 * The connections of a server.
 *
 * @since 0.1.0
 * @category models
 */
export interface Connections extends model.Connections {}

/**
 * The result of `check`. It can be written as JSON, and holds no secret: no URL, no password.
 *
 * @since 0.1.0
 * @category models
 */
export interface Report extends model.Report {}

/**
 * A statement, and where it would go now.
 *
 * @since 0.1.0
 * @category models
 */
export interface Explained extends model.Explained {}

/**
 * The options of the check, besides the configuration.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The number of processes that run with these options, each with its own pools. Default: `1`. */
  readonly instances?: number | undefined
}

/**
 * Asks every server at the same time, on connections of its own, and says what it all means. A server that is down is a finding
 * within its `connectTimeout` (5 seconds by default), and so is one that stops answering; the others are reported all the same.
 *
 * A `Topology` in the context takes the place of the option, as for the router. Needs no privilege. Runs on real time: with a
 * `TestClock` it waits for ever where a replica is behind.
 *
 * Fails with a `RouterConfigError` when the options cannot be used.
 *
 * @example
 * ```ts
 * import { Console, Effect } from "effect"
 * import { Doctor, RouterConfig } from "effect-db-router"
 *
 * // Before a deployment: does what the environment says work, for four processes?
 * const program = Effect.gen(function* () {
 *   const report = yield* Doctor.check(yield* RouterConfig.fromEnv, { instances: 4 })
 *   yield* Console.log(Doctor.render(report))
 *   return report.healthy
 * })
 * ```
 *
 * @since 0.1.0
 * @category questions
 */
export const check = (router: RouterConfig.Options, options: Options = {}): Effect.Effect<Report, RouterConfigError> =>
  checking.check(router, options)

/**
 * A report as text for a terminal: the servers, their settings, the findings with what to do.
 *
 * @since 0.1.0
 * @category rendering
 */
export const render: (report: Report) => string = rendering.report

/**
 * Says where statements would go now, each as it would be sent in one call. Runs nothing. One that the router would refuse has
 * an `error`.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { DbRouter, Doctor } from "effect-db-router"
 *
 * const program = Effect.gen(function* () {
 *   const statements = yield* Doctor.statementsOf("SELECT 1; DELETE FROM a;")
 *   return Doctor.renderExplained(yield* Doctor.explain(statements))
 * }).pipe(Effect.provide(DbRouter.layerEnv))
 * ```
 *
 * @since 0.1.0
 * @category questions
 */
export const explain: (statements: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<Explained>, never, DbRouter> =
  explaining.explain

/**
 * The statements of a script, such as a file of SQL, for `explain`: cut by PostgreSQL's own grammar. A text that it refuses, or
 * that is longer than 65536 characters, is left whole.
 *
 * @since 0.1.0
 * @category conversions
 */
export const statementsOf: (script: string) => Effect.Effect<ReadonlyArray<string>> = explaining.statementsOf

/**
 * The result of `explain` as text for a terminal.
 *
 * @since 0.1.0
 * @category rendering
 */
export const renderExplained: (statements: ReadonlyArray<Explained>) => string = rendering.explained
