/**
 * Looks for reads that miss a write of their own flow, or go back in time, on a real cluster whose servers are paused,
 * delayed, killed and promoted; and measures, on a healthy one, what each policy costs.
 */
import { Clock, Context, Effect, Fiber, Layer, Logger, LogLevel, Redacted, type Scope } from "effect"
import { Consistency, DbRouter, type RouterConfig } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as Internal from "../../src/internal/client/service.js"
import type { Cause } from "../../src/internal/consistency/inquiries.js"
import { type Behaviour, Client, Findings, fill, type Process, schema } from "./Client.js"
import { Nemesis } from "./Nemesis.js"

export const policies = {
  causal: () => Consistency.causal(),
  sticky: () => Consistency.sticky(),
  "window of 2 s": () => Consistency.window("2 seconds"),
  eventual: () => Consistency.eventual()
} satisfies Record<string, () => Consistency.Consistency>

export type Policy = keyof typeof policies

export interface Options {
  readonly seed: number
  /** How many reads there are to be at least, under the nemesis. */
  readonly reads: number
  readonly clients: number
  /** How many troubles there are to be at least. */
  readonly troubles: number
  readonly promotions: number
  /** How long a trouble lasts, in milliseconds. */
  readonly trouble: number
}

/** What one policy has shown while servers were in trouble. */
export interface Checked {
  readonly policy: Policy
  readonly findings: Findings
  readonly deeds: ReadonlyArray<string>
  readonly seconds: number
}

/** What one policy costs on a healthy cluster. */
export interface Measured {
  readonly policy: Policy
  readonly findings: Findings
  /** The share of reads that replicas have answered. */
  readonly share: number
  /** Extra round trips that asked for positions: for reads, and after writes. */
  readonly questions: Record<Cause, number>
}

const keys = [Redacted.make("of all the processes that take each other's tokens")]

const optionsOf = (cluster: PgCluster.Cluster, policy: Policy): RouterConfig.Options => ({
  groups: {
    default: [{ name: cluster.primary.name, url: cluster.primary.url, maxConnections: 12 }],
    read: cluster.replicas.map(({ name, url }) => ({ name, url, maxConnections: 12 }))
  },
  consistency: policies[policy](),
  tokens: { keys },
  health: { interval: "250 millis", timeout: "1 second" },
  waitForPrimary: { statements: "30 seconds" },
  shutdownTimeout: "1 second"
})

/** How often a router has asked for positions. */
const sentBy = (services: Context.Context<DbRouter.Services>): Readonly<Record<Cause, number>> =>
  Context.get(services, Internal.DbRouter).runner.router.causal?.inquiries.sent ?? { read: 0, write: 0 }

interface Running {
  readonly run: Process
  readonly sent: Readonly<Record<Cause, number>>
}

/** A router of its own, as another process has one. */
const processOf = (cluster: PgCluster.Cluster, policy: Policy): Effect.Effect<Running, Error, Scope.Scope> =>
  Effect.map(Layer.build(DbRouter.layer(optionsOf(cluster, policy))), (services) => ({
    run: (effect) => Effect.provide(effect, services),
    sent: sentBy(services)
  }))

const quiet = Logger.withMinimumLogLevel(LogLevel.Fatal)

const clientsOf = (
  seed: number,
  count: number,
  behaviour: Behaviour,
  processes: ReadonlyArray<Process>,
  findings: Findings
) => Array.from({ length: count }, (_, i) => new Client(seed * 1_000 + i, behaviour, processes, findings))

const runAll = (clients: ReadonlyArray<Client>, isOver: () => boolean) =>
  Effect.forEach(clients, (client) => client.run(isOver), { concurrency: "unbounded", discard: true })

/** A cluster with the table, which acknowledges a commit only when a standby has it. */
const cluster = (isDurable: boolean): Effect.Effect<PgCluster.Cluster, PgCluster.PgClusterError, Scope.Scope> =>
  Effect.gen(function* () {
    const context = yield* Layer.build(
      PgCluster.layer({ replicas: 2, settings: isDurable ? { synchronous_standby_names: "ANY 1 (*)" } : {} })
    )
    return yield* Effect.provide(PgCluster.PgCluster, context)
  })

const reset = (cluster: PgCluster.Cluster, count: number) =>
  Effect.gen(function* () {
    const primary = yield* cluster.currentPrimary
    yield* primary.query("drop table if exists register")
    yield* primary.query(schema)
    yield* primary.query(fill(count))
    yield* cluster.awaitReplayed
  })

const adventurous: Behaviour = { keys: 12, writes: 0.2, operations: 10, isAdventurous: true }

/** Checks a policy while a nemesis is at work. */
export const check = (policy: Policy, options: Options): Effect.Effect<Checked, Error> =>
  Effect.scoped(
    Effect.gen(function* () {
      const servers = yield* cluster(true)
      yield* reset(servers, adventurous.keys)
      const processes = [(yield* processOf(servers, policy)).run, (yield* processOf(servers, policy)).run]
      const findings = new Findings()
      const nemesis = new Nemesis(servers, options)
      const isOver = () => findings.reads >= options.reads && nemesis.deeds.length >= options.troubles
      const began = yield* Clock.currentTimeMillis
      const troubles = yield* Effect.fork(nemesis.run(isOver))
      const clients = clientsOf(options.seed, options.clients, adventurous, processes, findings)
      // A nemesis that fails would leave a check of nothing.
      yield* Effect.raceFirst(runAll(clients, isOver), Effect.zipRight(Fiber.join(troubles), Effect.never))
      yield* Fiber.join(troubles)
      const seconds = ((yield* Clock.currentTimeMillis) - began) / 1_000
      return { policy, findings, deeds: nemesis.deeds, seconds }
    })
  ).pipe(quiet)

const calm: Behaviour = { keys: 200, writes: 0.1, operations: 20, isAdventurous: false }

/** Measures policies on one healthy cluster, in turns, so that all have the same weather. */
export const measure = (
  of: ReadonlyArray<Policy>,
  options: { readonly seed: number; readonly rounds: number; readonly reads: number; readonly clients: number }
): Effect.Effect<ReadonlyArray<Measured>, Error> =>
  Effect.scoped(
    Effect.gen(function* () {
      const servers = yield* cluster(false)
      yield* reset(servers, calm.keys)
      const found = new Map<Policy, { readonly findings: Findings; questions: Measured["questions"] } & Running>()
      for (const policy of of) {
        const running = yield* processOf(servers, policy)
        found.set(policy, { findings: new Findings(), questions: { read: 0, write: 0 }, ...running })
      }
      const all = [...found.values()]
      // The first round opens connections and prepares statements.
      for (let round = 0; round <= options.rounds; round++) {
        for (let turn = 0; turn < all.length; turn++) {
          // The order changes from round to round, so that no policy always follows the same one.
          const measured = all[(round + turn) % all.length]!
          const { findings, run, sent } = measured
          const these = round === 0 ? new Findings() : findings
          const upTo = these.reads + options.reads
          if (round === 1) measured.questions = { read: -sent.read, write: -sent.write }
          yield* runAll(clientsOf(options.seed + round, options.clients, calm, [run], these), () => these.reads >= upTo)
        }
      }
      return [...found].map(([policy, { findings, questions, sent }]): Measured => {
        const onPrimary = findings.served.get(servers.primary.port) ?? 0
        return {
          policy,
          findings,
          questions: { read: questions.read + sent.read, write: questions.write + sent.write },
          share: 1 - onPrimary / findings.reads
        }
      })
    })
  ).pipe(quiet)
