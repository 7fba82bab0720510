/** The share of the pure reads of query builders and API servers that are called reads, and so may go to a replica. */
import { assert, describe, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { SqlClassifier } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import pg from "pg"
import { ormReads, ormSchema } from "../support/corpus/orms.js"

/** What the classifier does not call a read. The statistics of a server are its own (`pg_statio_all_tables`). */
const known = ["SELECT pk.constraint_type"]

describe("the reads that query builders send", () => {
  layer(PgCluster.layer({ replicas: 1 }), { timeout: "2 minutes" })((it) => {
    it.scoped("are reads, 99 of 100, and a standby runs each of them", () =>
      Effect.gen(function* () {
        const { awaitReplayed, primary, replicas } = yield* PgCluster.PgCluster
        yield* primary.query(ormSchema)
        yield* awaitReplayed
        const { classify } = yield* SqlClassifier.fromCatalog({
          load: SqlClassifier.readCatalog((sql) => primary.query(sql))
        })
        const client = new pg.Client({ connectionString: Redacted.value(replicas[0]!.url) })
        yield* Effect.acquireRelease(
          Effect.promise(() => client.connect()),
          () => Effect.promise(() => client.end())
        )
        const others: Array<string> = []
        const failed: Array<string> = []
        let count = 0
        for (const [sender, texts] of ormReads) {
          for (const text of texts) {
            count++
            const { kind, reason } = classify(text)
            if (kind !== "read") others.push(`${sender}: ${text.slice(0, 60)}: ${reason}`)
            const parameters = Math.max(0, ...[...text.matchAll(/\$(\d+)/g)].map((match) => Number(match[1])))
            yield* Effect.promise(() =>
              client
                .query(parameters === 0 ? text : { text, values: new Array(parameters).fill(null) })
                .catch((error: Error) => failed.push(`${sender}: ${text.slice(0, 60)}: ${error.message}`))
            )
          }
        }
        assert.deepStrictEqual(failed, [])
        assert.deepStrictEqual(
          others.filter((text) => !known.some((start) => text.includes(start))),
          []
        )
        assert.isAtMost(others.length / count, 0.01, others.join("\n"))
        assert.isAtLeast(count, 100)
      })
    )
  })
})
