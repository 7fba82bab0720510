import { PgCluster } from "effect-db-router/testing"

/** One primary and two streaming standbys: what most tests need. Share it: one cluster a test file. */
export const TestCluster = PgCluster.layer({ replicas: 2 })
