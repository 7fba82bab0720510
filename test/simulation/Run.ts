/** One run: a plan in a world of its own, from the first connection to the last one closed. */
import { Reactivity } from "@effect/experimental"
import {
  Cause,
  DefaultServices,
  Duration,
  Effect,
  Exit,
  Fiber,
  GlobalValue,
  Logger,
  type MutableRef,
  Random,
  Redacted,
  Schedule,
  Scope,
  Stream
} from "effect"
import { Consistency, DbRouter, Selector } from "effect-db-router"
import { Cluster, type ClusterOptions } from "./Cluster.js"
import { defer, install } from "./Globals.js"
import { healAll, isSettled, overAt, type Scene, settleEvery, settleLimit, unleash } from "./Nemesis.js"
import { Network } from "./Network.js"
import { type Fault, type FaultKind, type Plan, type RouterPlan, registers } from "./Plan.js"
import { password } from "./Scram.js"
import type { Server } from "./Server.js"
import type { Change } from "./Store.js"
import { type Invariant, initialOf, Seen, Truth, type Violation } from "./Truth.js"
import { type Handle, Workload } from "./Workload.js"
import { Stuck, World } from "./World.js"

export interface Result {
  readonly seed: string
  readonly violations: ReadonlyArray<Violation>
  readonly fingerprint: string
  readonly history: ReadonlyArray<string>
  readonly operations: number
  /** How many steps of each kind its flows have begun, those inside others too. */
  readonly steps: Readonly<Record<string, number>>
  readonly statements: number
  readonly checks: Readonly<Partial<Record<Invariant, number>>>
  /** Virtual milliseconds. */
  readonly time: number
  readonly turns: number
  readonly connections: number
  readonly faults: Readonly<Partial<Record<FaultKind, number>>>
}

const rowsOf = (system: string): ReadonlyArray<Change> =>
  Array.from({ length: registers }, (_, i) => ({
    table: "register",
    key: String(i + 1),
    row: { id: i + 1, value: initialOf(system), writes: 0 }
  }))

/** A cluster, and the routers that are made for it. */
class Site implements Scene {
  readonly cluster: Cluster
  readonly clients: ReadonlyArray<string>
  readonly handles: Array<Handle> = []
  readonly heard: Array<Set<string>> = []

  constructor(
    readonly world: World,
    readonly network: Network,
    readonly truth: Truth,
    system: string,
    options: Omit<ClusterOptions, "rows">,
    readonly plans: ReadonlyArray<RouterPlan>,
    readonly faults: ReadonlyArray<Fault>,
    /** Of its hosts. */
    client: string
  ) {
    this.cluster = new Cluster(world, network, system, { ...options, rows: rowsOf(system) }, truth.observer)
    truth.add(this.cluster, initialOf(system))
    this.clients = plans.map((_, i) => `${client}${i + 1}`)
  }

  get noise() {
    return this.truth.noise
  }
}

const optionsOf = (plan: RouterPlan, client: string, servers: ReadonlyArray<Server>, network: Network) => {
  const engine = ({ host }: Server) => ({
    name: host,
    host,
    port: 5432,
    database: "shop",
    username: "app",
    password: Redacted.make(password),
    stream: network.streamOf(client) as never,
    maxConnections: plan.maxConnections,
    ...(plan.connectTimeout === undefined ? {} : { connectTimeout: Duration.millis(plan.connectTimeout) })
  })
  const [first, ...others] = servers.map(engine)
  return {
    groups: { default: [first!], read: others },
    strategy: Selector[plan.strategy],
    onNoReplica: plan.onNoReplica,
    consistency: Consistency.causal({ scope: plan.scope, wait: plan.wait }),
    prepare: plan.prepare,
    health: { interval: plan.interval, timeout: 400 },
    waitForPrimary: { atStart: Duration.seconds(10) },
    tokens: { keys: [Redacted.make("a key that all the routers of a simulated program share")] },
    ...(plan.hedge === undefined ? {} : { hedge: Duration.millis(plan.hedge) })
  }
}

/** How long everything may take to be used again after the last fault, in virtual milliseconds. */
const recovery = 30_000

/** The most connections that a router may try to open to one server within a second. */
const mostAttempts = 100

/** How long something may wait for a server that is known to be down, in milliseconds: as long as one connection is tried. */
const hopeless = 6_000

/** How long a stream of notifications may stay on a server that does not take the writes any more, in milliseconds. */
const mayStay = 1_500

const newFlow = "SELECT $1::text AS op, id FROM register WHERE id = $2"

/** How often the pools are looked at, in virtual milliseconds. */
const lookEvery = 250

/** The longest that a plan may take. */
const limit = 400_000

/** How long the turns may take of all connections of a router that are opened one at a time, in milliseconds. */
const turns = 2_000

class Simulation {
  readonly world: World
  readonly network: Network
  readonly truth: Truth
  readonly injected = new Map<FaultKind, number>()
  private readonly sites: ReadonlyArray<Site>
  operations = 0
  private kinds: ReadonlyMap<string, number> = new Map()

  /** How many steps of each kind have begun. */
  get steps(): Readonly<Record<string, number>> {
    return Object.fromEntries(this.kinds)
  }

  constructor(readonly plan: Plan) {
    this.world = new World(plan.seed)
    this.network = new Network(this.world)
    this.truth = new Truth(this.world)
    const { network, truth, world } = this
    const { other } = plan
    const site = new Site(world, network, truth, "db", plan, plan.routers, plan.faults, "app")
    this.sites = [
      site,
      ...(other === undefined
        ? []
        : [
            new Site(
              world,
              network,
              truth,
              "other",
              { ...plan, synchronous: 0, replicas: other.replicas },
              [other.router],
              other.faults,
              "apart"
            )
          ])
    ]
    const intervals = this.sites.flatMap(({ plans }) => plans.map(({ interval }) => interval))
    this.truth.noticesWithin = 2 * Math.max(...intervals) + 1_000
    for (const { cluster } of this.sites) {
      cluster.ignoresAfter = 5 * Math.min(...intervals)
      cluster.noticesWithin = this.truth.noticesWithin
    }
  }

  private makeRouter({ clients, cluster, handles, heard: all, plans }: Site, index: number) {
    return Effect.gen(this, function* () {
      const plan = plans[index]!
      const name = clients[index]!
      const router = yield* DbRouter.make(optionsOf(plan, name, cluster.servers, this.network))
      handles[index] = {
        name,
        router,
        cluster,
        written: plan.scope === "process" ? new Seen() : undefined,
        peers: handles
      }
      const heard = new Set<string>()
      all[index] = heard
      yield* router.client.listen("news").pipe(
        Stream.runForEach((payload) => Effect.sync(() => heard.add(payload))),
        Effect.retry(Schedule.spaced("200 millis")),
        Effect.repeat(Schedule.spaced("200 millis")),
        Effect.forkScoped
      )
    })
  }

  readonly program = Effect.gen(this, function* () {
    const { plan, truth, world } = this
    const scope = yield* Scope.make()
    for (const site of this.sites) {
      yield* Effect.forEach(site.plans, (_, i) => this.makeRouter(site, i), { discard: true }).pipe(Scope.extend(scope))
    }
    const [site, other] = this.sites
    const workload = new Workload(truth, other?.handles ?? [], yield* Effect.runtime<never>())
    for (const site of this.sites) unleash(site, site.faults, this.injected)
    const flows = yield* Effect.forEach(plan.flows, ({ begin, ops, router }, i) =>
      Effect.fork(Effect.delay(workload.flow(i + 1, site!.handles[router]!, ops), begin))
    )
    const done = Effect.zipRight(Fiber.awaitAll(flows), workload.awayEnded)
    const faults = this.sites.flatMap((site) => site.faults)
    const begun = Math.max(0, ...faults.map(overAt))
    const watching = yield* Effect.forkDaemon(Effect.repeat(this.look, Schedule.spaced(lookEvery)))
    const last = Math.max(0, ...faults.map((fault) => Math.max(overAt(fault), fault.at + fault.millis)))
    // A timer counts whole milliseconds only.
    yield* Effect.sleep(Math.max(0, begun - world.now) + 2)
    yield* Effect.timeoutOption(done, Math.max(0, last - world.now))
    for (const site of this.sites) healAll(site)
    yield* this.settled
    const ended = yield* Effect.timeoutOption(done, recovery * 2)
    if (ended._tag === "None") {
      const stuck = yield* Effect.filter(flows, (fiber) => Effect.map(fiber.poll, (exit) => exit._tag === "None"))
      truth.violate(
        "ends",
        `after ${recovery * 2} ms ${stuck.length} of ${flows.length} flows have not ended (${stuck.map((fiber) => flows.indexOf(fiber) + 1).join(", ")}), or what they do in other processes`
      )
      yield* Effect.forEach(stuck, Fiber.interruptFork)
    }
    yield* Effect.forEach(this.sites, (site) => this.recovered(site), { concurrency: "unbounded" })
    yield* Fiber.interrupt(watching)
    yield* this.close(scope)
    this.operations = workload.operations
    this.kinds = workload.kinds
    truth.conclude()
  })

  /** Since when there is none, and something waits, by router and server. */
  private readonly none = new Map<string, number>()

  /** What waits for a connection waits for one that is used, or is being opened, or is to be opened when its turn comes. */
  private readonly look = Effect.gen(this, function* () {
    // While the program is stalled nothing of it can end what lasts.
    if (this.world.now - this.lookedAt > 2 * lookEvery) for (const all of this.lasting) all.clear()
    this.lookedAt = this.world.now
    for (const { cluster, handles } of this.sites) {
      yield* Effect.forEach(handles, (handle) => this.lookAt(cluster, handle))
    }
  })

  private lookAt(cluster: Cluster, { name: client, router }: Handle) {
    return Effect.gen(this, function* () {
      const status = yield* router.status
      const isDivided = cluster.servers.some((server) => server.lastTimeline !== cluster.servers[0]!.lastTimeline)
      // A flow that has seen nothing, so that no position keeps it from a server that has not followed.
      if (isDivided)
        Effect.runFork(Effect.ignore(router.client.unsafe(newFlow, [`f0.${Math.floor(this.world.now)}`, 1])))
      this.lookAtListening(
        cluster,
        client,
        status.find(({ eligible, group }) => eligible && group === "default")
      )
      for (const { name, pool, state } of status) {
        const key = `${client} ${name}`
        if (pool.waiting === 0 || state !== "down") this.hopeless.delete(key)
        else if (!this.hopeless.has(key)) this.hopeless.set(key, this.world.now)
        this.truth.check(
          "connections",
          this.world.now - (this.hopeless.get(key) ?? this.world.now) < hopeless,
          () => `${pool.waiting} in ${client} wait for a connection to ${name}, which is known to be down`
        )
        if (pool.waiting === 0 || pool.total > 0) this.none.delete(key)
        else if (!this.none.has(key)) this.none.set(key, this.world.now)
        this.truth.check(
          "connections",
          pool.waiting === 0 || (pool.idle === 0 && this.world.now - (this.none.get(key) ?? this.world.now) < turns),
          () =>
            `${pool.waiting} in ${client} wait for a connection to ${name}, which has ${pool.total} of ${pool.max}, ${pool.idle} of them idle`
        )
      }
    })
  }

  /** Since when something waits at a server that is down, by router and server. */
  private readonly hopeless = new Map<string, number>()

  /** Since when a router listens elsewhere than it writes. */
  private readonly elsewhere = new Map<string, number>()

  private readonly lasting = [this.none, this.hopeless, this.elsewhere]
  private lookedAt = 0

  private lookAtListening(cluster: Cluster, client: string, writer: { readonly name: string } | undefined): void {
    const { network, truth, world } = this
    // A server behind a partition does not know that the router has let go.
    const open = new Set(
      [...network.connections].filter((one) => one.client === client && !one.socket.destroyed).map(({ id }) => id)
    )
    const stale = cluster.servers.find(
      (server) => server.host !== writer?.name && server.listeningTo("news").some((id) => open.has(id))
    )
    if (writer === undefined || stale === undefined) {
      this.elsewhere.delete(client)
      return
    }
    const since = this.elsewhere.get(client) ?? world.now
    this.elsewhere.set(client, since)
    truth.check(
      "listens",
      world.now - since < mayStay,
      () => `${client} listens on ${stale.host}, and writes on ${writer.name} since ${world.now - since} ms`
    )
  }

  /** Waits until the servers are what they have to be, so that the rest is the routers' part. */
  private readonly settled = Effect.gen(this, function* () {
    const { sites, world } = this
    const began = world.now
    do yield* Effect.sleep(settleEvery)
    while (!sites.every(({ cluster }) => isSettled(cluster)) && world.now - began < settleLimit)
  })

  /** Everything is used again: writes, reads of every standby, notifications. */
  private recovered(site: Site) {
    return Effect.gen(this, function* () {
      const { truth, world } = this
      const { handles, plans } = site
      const began = world.now
      const exits = yield* Effect.forEach(
        handles,
        (handle, i) =>
          Effect.exit(
            Effect.retry(this.works(site, handle, i), Schedule.spaced("250 millis").pipe(Schedule.upTo(recovery)))
          ),
        { concurrency: "unbounded" }
      )
      exits.forEach((exit, i) => {
        truth.check(
          "heals",
          Exit.isSuccess(exit),
          () =>
            `router ${i + 1} has not recovered after ${world.now - began} ms: ${Exit.isFailure(exit) ? Cause.pretty(exit.cause) : ""}`
        )
      })
      // Where nothing waits, and nothing is asked for it, probes alone tell what a replica has.
      const known = world.now + 2 * Math.max(...plans.map(({ interval }) => interval)) + 500
      do yield* Effect.sleep(100)
      while (world.now < known && !(yield* this.haveCaughtUp(handles)))
      for (const [i, handle] of handles.entries())
        if (Exit.isSuccess(exits[i]!)) yield* this.readsEverywhere(site, handle, i)
      yield* Effect.sleep(300)
      for (const { name: client, router } of handles) {
        let pools = yield* router.status
        // A probe uses a free connection of the pool. What a host that vanished has left behind TCP finds after ten seconds.
        const mayEnd = () =>
          pools.some(({ name, pool }) => pool.total > pool.idle && this.network.isForsaken(client, name))
        for (let looks = 0; pools.some(({ pool }) => pool.total > pool.idle) && (looks < 50 || mayEnd()); looks++) {
          yield* Effect.sleep(looks < 50 ? 10 : 100)
          pools = yield* router.status
        }
        for (const { name, pool } of pools) {
          truth.check(
            "connections",
            pool.waiting === 0,
            () => `${pool.waiting} wait for a connection to ${name}, and nothing runs`
          )
          truth.check(
            "connections",
            pool.total === pool.idle,
            () => `${pool.total - pool.idle} connections to ${name} are in use, and nothing runs`
          )
        }
      }
    })
  }

  /** Whether all routers know that the replicas have what the primary has. */
  private haveCaughtUp(handles: ReadonlyArray<Handle>) {
    return Effect.map(
      Effect.forEach(handles, ({ router }) => router.status),
      (all) => all.flat().every(({ lag, role }) => role !== "replica" || lag?.bytes === 0n)
    )
  }

  private works({ heard }: Site, { router }: Handle, index: number) {
    return Effect.gen(this, function* () {
      const sql = router.client
      const states = yield* router.status
      const bad = states.find((one) => one.state !== "up")
      if (bad !== undefined) return yield* Effect.fail(new Error(`${bad.name} is ${bad.state}: ${bad.reason ?? ""}`))
      yield* sql.unsafe("UPDATE account SET balance = balance + 1 WHERE id = $1", [0])
      yield* sql
        .unsafe("SELECT $1::text AS op, id FROM register WHERE id = $2", [`f0.${index}`, 1])
        .pipe(DbRouter.replica)
      yield* sql.notify("news", `after ${index}`)
      yield* Effect.sleep(50)
      if (!heard[index]!.has(`after ${index}`)) return yield* Effect.fail(new Error("a notification does not arrive"))
    })
  }

  /** Reads until every standby has been read from. */
  private readsEverywhere({ cluster, plans }: Site, { router }: Handle, index: number) {
    return Effect.gen(this, function* () {
      const { truth, world } = this
      const began = world.now
      const standbys = cluster.servers.filter(({ isStandby }) => isStandby)
      for (const { host } of standbys) truth.served.delete(host)
      const unused = () => standbys.filter(({ host }) => !truth.served.has(host))
      // A choice by latency or load need not use all of them.
      const { strategy } = plans[index]!
      const isEven = strategy === "roundRobin" || strategy === "random"
      const hasTime = () => isEven && world.now - began < recovery
      const many = isEven ? cluster.servers.length * 4 : 3
      for (let n = 0; n < 3 || (unused().length > 0 && (n < many || hasTime())); n++) {
        // The first read of one that has come back may find that a connection is dead, and only a probe brings it in again.
        if (n >= many) yield* Effect.sleep(100)
        const read = router.client.unsafe("SELECT $1::text AS op, id FROM register WHERE id = $2", [`f0.${n}`, 1])
        // Flows that have seen nothing: one that has may stay where it is.
        const exit = yield* Effect.promise(() => Effect.runPromiseExit(read))
        truth.check(
          "heals",
          Exit.isSuccess(exit),
          () => `a read fails after everything has healed: ${Exit.isFailure(exit) ? Cause.pretty(exit.cause) : ""}`
        )
      }
      truth.check(
        "heals",
        !isEven || unused().length === 0,
        () =>
          `router ${index + 1} does not read from ${unused()
            .map(({ host }) => host)
            .join(", ")} after everything has healed`
      )
    })
  }

  private close(scope: Scope.CloseableScope) {
    return Effect.gen(this, function* () {
      const { network, truth, world } = this
      const began = world.now
      yield* Scope.close(scope, Exit.void)
      // Nothing runs any more.
      truth.check("ends", world.now - began < 2000, () => `closing the routers took ${world.now - began} ms`)
      truth.check(
        "no storm",
        network.busiest <= mostAttempts,
        () => `a router tried to open ${network.busiest} connections to one server within a second`
      )
      const left = () =>
        [...network.connections].filter(({ client }) => this.sites.some(({ clients }) => clients.includes(client)))
      for (let waited = 0; waited < 2000 && left().length > 0; waited += 100) yield* Effect.sleep(100)
      const open = left()
      truth.check(
        "connections",
        open.length === 0,
        () =>
          `${open.length} connections are open after the routers are closed (${open.map(({ host, id }) => `${id} to ${host}`).join(", ")})`
      )
    })
  }

  async run(): Promise<void> {
    const { truth, world } = this
    let isDone = false
    const rejected = (error: unknown) =>
      truth.violate("no crash", `an unhandled rejection: ${String(error instanceof Error ? error.stack : error)}`)
    const thrown = (error: unknown) =>
      truth.violate("no crash", `an uncaught exception: ${String(error instanceof Error ? error.stack : error)}`)
    process.on("unhandledRejection", rejected)
    process.on("uncaughtException", thrown)
    const uninstall = install(world, world.isTold)
    try {
      const fiber = Effect.runFork(
        this.program.pipe(
          Effect.provide(Reactivity.layer),
          Effect.provide(Logger.remove(Logger.defaultLogger)),
          Effect.withRandom(Random.make(world.seed))
        )
      )
      fiber.addObserver((exit) => {
        isDone = true
        if (Exit.isFailure(exit)) truth.violate("no crash", `the program fails: ${Cause.pretty(exit.cause)}`)
      })
      await world.run(defer, () => isDone, limit)
    } catch (error) {
      truth.violate(
        error instanceof Stuck ? "ends" : "no crash",
        error instanceof Error ? (error.stack ?? error.message) : String(error)
      )
    } finally {
      uninstall()
      const hasCrashed = truth.violations.some(({ invariant }) => invariant === "no crash")
      if (!hasCrashed) truth.check("no crash", true, () => "")
      process.off("unhandledRejection", rejected)
      process.off("uncaughtException", thrown)
    }
  }
}

/** What Effect keeps for a whole process, begun anew: a run must not depend on the runs before it. */
const renewEffect = (seed: string): void => {
  const counter = GlobalValue.globalValue(
    Symbol.for("effect/Fiber/Id/_fiberCounter"),
    (): MutableRef.MutableRef<number> => {
      throw new Error("Effect counts its fibers elsewhere now")
    }
  )
  counter.current = 0
  // Of fibers that something outside of Effect starts.
  DefaultServices.liveServices.unsafeMap.set(Random.Random.key, Random.make(`${seed}/outside`))
}

/** Runs a plan. `isTold` keeps the history. */
export const runPlan = async (plan: Plan, isTold: boolean): Promise<Result> => {
  const simulation = new Simulation(plan)
  const { injected, network, truth, world } = simulation
  world.isTold = isTold
  renewEffect(plan.seed)
  await simulation.run()
  return {
    seed: plan.seed,
    violations: truth.violations,
    fingerprint: world.fingerprint,
    history: world.history,
    operations: simulation.operations,
    steps: simulation.steps,
    statements: truth.statements,
    checks: truth.checks,
    time: world.now,
    turns: world.turns,
    connections: network.opened,
    faults: Object.fromEntries(injected)
  }
}
