/** One row by its primary key, at 50 fibers, against the clients that others use, on the same servers. */
import { Effect } from "effect"
import type { PgCluster } from "effect-db-router/testing"
import { compare, effects, type Pace, promises, speed } from "./Measure.js"
import { others } from "./others/index.js"
import { type Find, type Other, urlOf } from "./others/Other.js"
import { each, type Line } from "./Row.js"
import { select } from "./Select.js"
import { type Pair, poolSize, primaryKeys } from "./Servers.js"

const fibers = 50

const what = `a primary-key SELECT, ${fibers} fibers`

/** The connections of a client to a server on which it has read the table. */
const readers = (node: PgCluster.Node, application: string) =>
  Effect.map(
    node.query<{ readonly readers: number }>(
      "SELECT count(*)::int AS readers FROM pg_stat_activity WHERE application_name = $1 AND query ILIKE '%item%'",
      [application]
    ),
    ([row]) => row!.readers
  )

/** Shows that a client finds the right rows, and finds them on the replica alone. */
const verify = (find: Find, name: string, { primary, replicas }: Pair) =>
  Effect.gen(function* () {
    const wanted = Array.from({ length: fibers }, (_, i) => i + 1)
    const found = yield* Effect.promise(() => Promise.all(wanted.map((id) => find(id))))
    const isRight = wanted.every((id, i) => found[i]?.id === id && found[i]?.name === `item ${id}`)
    if (!isRight) return yield* Effect.dieMessage(`${name} does not find the rows`)
    const onPrimary = yield* readers(primary, name)
    const onReplica = yield* readers(replicas[0]!, name)
    if (onPrimary > 0 || onReplica === 0) {
      return yield* Effect.dieMessage(
        `${name} reads on ${onPrimary} connections of the primary, ${onReplica} of the replica`
      )
    }
  })

const row = (other: Other, servers: Pair, pace: Pace) =>
  Effect.scoped(
    Effect.gen(function* () {
      const { primary, replicas, router } = servers
      const find = yield* other.connect({
        application: other.name,
        primary: urlOf(primary, other.name),
        replica: urlOf(replicas[0]!, other.name),
        poolSize
      })
      yield* verify(find, other.name, servers)
      const id = primaryKeys()
      const [without, routed] = yield* compare(
        [promises(fibers, () => find(id())), effects(fibers, select(router.client))],
        pace
      )
      return {
        section: "others",
        what,
        against: other.name,
        reach: { atLeast: other.atLeast },
        unit: "x",
        measured: speed(without!, routed!),
        detail: each(routed!, without!)
      } satisfies Line
    })
  ).pipe(
    Effect.catchAll((error) =>
      Effect.succeed<Line>({ section: "others", what, against: other.name, why: error.message })
    )
  )

export const run = (servers: Pair, pace: Pace): Effect.Effect<ReadonlyArray<Line>> =>
  Effect.forEach(others, (other) => row(other, servers, pace))
