/**
 * @since 0.1.0
 */
export * as PgCluster from "./PgCluster.js"
export * as TestSession from "./TestSession.js"
