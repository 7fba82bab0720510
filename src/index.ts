/**
 * Routes the statements of `@effect/sql` to the right PostgreSQL server.
 *
 * @since 0.1.0
 */
import { layerEnv } from "./DbRouter.js"

export * as Consistency from "./Consistency.js"
export * as DbRouter from "./DbRouter.js"
export * as Doctor from "./Doctor.js"
export * as Engine from "./Engine.js"
export * as EngineGroup from "./EngineGroup.js"
export * as Health from "./Health.js"
export * as HttpSession from "./HttpSession.js"
export * as HttpStatus from "./HttpStatus.js"
export * as Position from "./Position.js"
export * as RouterConfig from "./RouterConfig.js"
export * as RouterError from "./RouterError.js"
export * as RoutingContext from "./RoutingContext.js"
export * as Selector from "./Selector.js"
export * as Session from "./Session.js"
export * as SqlClassifier from "./SqlClassifier.js"
export * as Telemetry from "./Telemetry.js"
export * as Token from "./Token.js"
export * as Topology from "./Topology.js"

/**
 * The router from environment variables: {@link layerEnv}.
 *
 * @since 0.1.0
 * @category layers
 */
export const DbRouterLive = layerEnv
