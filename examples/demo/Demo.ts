/**
 * The demo: servers, the application on them, its users, and what is shown of it.
 */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { Duration, Effect, Layer, Logger, LogLevel, Schedule } from "effect"
import { DbRouterLive } from "effect-db-router"
import type { PgCluster } from "effect-db-router/testing"
import * as Checks from "./Checks.js"
import * as Controls from "./Controls.js"
import * as Databases from "./Databases.js"
import { DemoError } from "./DemoError.js"
import { HttpServiceLive, url } from "./HttpService.js"
import { migrate, seeded } from "./Migrations.js"
import { Observations } from "./Observations.js"
import * as Report from "./Report.js"
import { Screen } from "./Screen.js"
import { Servers } from "./Servers.js"
import * as Table from "./Table.js"
import { Traffic } from "./Traffic.js"

/** The duration of the traffic with `--once`. */
const passDuration = Duration.seconds(4)

const number = (n: number) => n.toLocaleString("en-US")

/** The tables and their first rows, on all servers. */
const MigrationsLive = Layer.effectDiscard(
  Effect.gen(function* () {
    const { awaitReplayed } = yield* Servers
    const { step } = yield* Screen
    yield* step("Migrations, through the router", migrate, (done) => done.map(([, name]) => name).join(", "))
    const { customers, orders, products } = seeded
    yield* step(
      `Replayed: ${number(customers)} customers, ${number(products)} products, ${number(orders)} orders`,
      awaitReplayed
    )
  })
)

/** Connections that are kept alive until the users have gone. */
const HttpClientLive = NodeHttpClient.layerWithoutAgent.pipe(
  Layer.provide(NodeHttpClient.makeAgentLayer({ keepAlive: true }))
)

/** The application, and the users who will send it requests. */
const ApplicationLive = Traffic.Default.pipe(
  Layer.provide(HttpClientLive),
  Layer.provideMerge(
    Layer.tap(HttpServiceLive, (services) =>
      Effect.flatMap(Screen, ({ tick }) =>
        Effect.flatMap(url, (address) =>
          Effect.zipRight(tick(`HTTP service: ${address}`), tick(`Status page: ${address}/`))
        )
      ).pipe(Effect.provide(services))
    )
  ),
  Layer.provide(MigrationsLive),
  Layer.provide(DbRouterLive)
)

type Reporter = Effect.Effect.Success<typeof Report.begin>

/** The table as lines that fit the terminal, with so many others below. */
const table = (report: Report.Report, hint: string, below = 0) =>
  Effect.flatMap(Screen, ({ format }) =>
    Effect.map(format, (format) => Table.render(report, { ...format, height: format.height - below }, hint))
  )

/** Shows the table while an effect runs: drawn over again and again, or as a line from time to time. */
const watching = <A, E, R>(effect: Effect.Effect<A, E, R>, report: Reporter, hint: string) =>
  Effect.gen(function* () {
    const { draw, interactive, print } = yield* Screen
    const { tally } = yield* Traffic
    const { forgetDecisions } = yield* Observations
    yield* forgetDecisions
    const show = Effect.flatMap(tally, report).pipe(
      Effect.flatMap((now) => (interactive ? Effect.flatMap(table(now, hint), draw) : print(` ${Table.summary(now)}`)))
    )
    // A look that is interrupted is a statement that the server cancels, and counts as rolled back.
    const shown = Effect.repeat(Effect.uninterruptible(show), Schedule.spaced(interactive ? "500 millis" : "2 seconds"))
    return yield* Effect.raceFirst(effect, Effect.zipRight(shown, Effect.never))
  })

/** Traffic until the demo is stopped. */
const live = (report: Reporter) =>
  Effect.gen(function* () {
    const { draw } = yield* Screen
    const { run, tally } = yield* Traffic
    const { release } = yield* Controls.Controls
    const last = Effect.flatMap(Effect.flatMap(tally, report), (last) => table(last, "stopping"))
    yield* watching(run(Duration.infinity), report, `open ${yield* url}  Ctrl-C stops`).pipe(
      Effect.onInterrupt(() => Effect.zipRight(release, Effect.flatMap(last, draw)))
    )
  }).pipe(Effect.provide(ApplicationLive))

/** Users for a while; then everything that they have ordered is looked for. */
const visit = (report: Reporter) =>
  Effect.gen(function* () {
    const { draw, interactive, step } = yield* Screen
    const { awaitReplayed } = yield* Servers
    const { askAgain, run, tally } = yield* Traffic
    yield* watching(run(passDuration), report, `${yield* url}  one pass`)
    if (interactive) yield* draw([])
    yield* step("The standbys replay what was written", awaitReplayed)
    const again = yield* step("Every order is asked for again", askAgain, ({ asked }) => number(asked.length))
    return { tally: yield* tally, again }
  }).pipe(Effect.provide(ApplicationLive))

const once = (report: Reporter, exclusive: boolean) =>
  Effect.gen(function* () {
    const { format, print } = yield* Screen
    const { disconnected, list, readGroup } = yield* Servers
    const { again, tally } = yield* visit(report)
    yield* disconnected
    const last = yield* report(tally)
    const ordersOn = new Map(
      yield* Effect.forEach(list, ({ countOrders, name }) =>
        Effect.map(countOrders(again.asked), (found) => [name, found] as const)
      )
    )
    const checks = Checks.run({
      ...last,
      readGroup,
      exclusive,
      again: { asked: again.asked.length, found: again.found },
      ordersOn
    })
    const failed = checks.filter(({ problems }) => problems.length > 0).length
    const verdict = Table.checkLines(checks, yield* format)
    yield* print(...(yield* table(last, "one pass", verdict.length)), ...verdict)
    if (failed > 0) yield* new DemoError({ message: `${failed} of ${checks.length} checks failed` })
  })

/** The servers, started if need be, and the environment that names them. */
const databases = Effect.gen(function* () {
  const { step } = yield* Screen
  const given = yield* Databases.areGiven
  const { cluster, environment } = given
    ? { cluster: undefined, environment: yield* Effect.configProviderWith(Effect.succeed) }
    : yield* step("PostgreSQL: a primary and two streaming standbys", Databases.start)
  const controls = cluster === undefined ? Controls.none : Controls.make(cluster)
  const connect = Effect.withConfigProvider(Layer.build(Servers.Default), environment)
  const servers = yield* given ? step("PostgreSQL: the servers that the environment names", connect) : connect
  return { cluster, given, controls, environment, servers }
})

/** The warnings in the logs of the demo's own servers: they may say why a check has failed. */
const complaints = (cluster: PgCluster.Cluster | undefined) =>
  Effect.gen(function* () {
    const { print } = yield* Screen
    for (const { log, name } of cluster?.nodes ?? []) {
      const lines = (yield* log).split("\n").filter((line) => /\b(?:ERROR|FATAL|PANIC|STATEMENT): /.test(line))
      yield* print(...lines.map((line) => `   ${name}: ${line}`))
    }
  })

const onServers = (mode: "once" | "live", exclusive: boolean) =>
  Effect.gen(function* () {
    const { list } = yield* Servers
    const { paint, print } = yield* Screen
    const width = Math.max(...list.map(({ name }) => name.length))
    for (const { address, look, name } of list) {
      const { standby } = yield* look
      yield* print(`     ${name.padEnd(width)}  ${address}  ${paint("dim", standby ? "standby" : "primary")}`)
    }
    const report = yield* Report.begin
    yield* mode === "once" ? once(report, exclusive) : live(report)
  })

export const run = (mode: "once" | "live") =>
  Effect.gen(function* () {
    const { print } = yield* Screen
    const { tracer } = yield* Observations
    yield* Effect.gen(function* () {
      const { cluster, controls, environment, given, servers } = yield* databases
      yield* onServers(mode, !given).pipe(
        Effect.provide(servers),
        Effect.provideService(Controls.Controls, controls),
        Effect.withConfigProvider(environment),
        Effect.withTracer(tracer),
        // What fails is in the table; a log would be written across it.
        Logger.withMinimumLogLevel(LogLevel.None),
        Effect.tapError(() => complaints(cluster))
      )
    }).pipe(
      Effect.scoped,
      Effect.onInterrupt(() => print(" Stopped. Nothing is left behind."))
    )
  }).pipe(Effect.provide([Screen.Default, Observations.Default]))
