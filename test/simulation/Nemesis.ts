/** Brings about the faults of a plan, and heals them. */
import { Chance } from "./Chance.js"
import type { Cluster } from "./Cluster.js"
import type { Network } from "./Network.js"
import { PgError } from "./PgError.js"
import type { Fault, FaultKind } from "./Plan.js"
import type { Server } from "./Server.js"
import type { Noise } from "./Truth.js"
import type { World } from "./World.js"

export interface Scene {
  readonly world: World
  readonly network: Network
  readonly cluster: Cluster
  /** The hosts that the routers run on. */
  readonly clients: ReadonlyArray<string>
  readonly noise: Noise
}

/** Undoes a fault. */
type Heal = () => void

const terminated = new PgError(
  "57P01",
  "terminating connection due to administrator command",
  "ProcessInterrupts",
  "FATAL"
)

/** After how long at most a standby takes over, and the old primary of a split brain follows, in milliseconds. */
const promotesWithin = 1500
const lagsWithin = 300
const rejoinsWithin = 2000

const restart =
  (server: Server): Heal =>
  () =>
    server.start()

/** Whether it is on the newest timeline: no manager has another one take over. */
const isNewest = ({ servers }: Cluster, { timeline }: Server): boolean =>
  servers.every((server) => server.timeline <= timeline)

/** Has a standby take over, and the others follow it, as a cluster's manager does. */
const promote = ({ cluster, world }: Scene, chosen: Server, chance: Chance): void => {
  if (!chosen.isStandby || chosen.state !== "up" || !isNewest(cluster, chosen)) return
  world.tell(`nemesis: ${chosen.host} is promoted`)
  chosen.promote()
  for (const server of cluster.servers) {
    if (server === chosen) continue
    const delay = chance.is(0.5) ? 20 + cluster.servers.indexOf(server) * 15 : chance.between(20, rejoinsWithin)
    world.after(delay, () => rejoin(cluster, server))
  }
}

/** Makes a server a standby of the primary, with a fresh copy if its own log does not fit. */
export const rejoin = (cluster: Cluster, server: Server): void => {
  const { primary } = cluster
  if (primary === undefined || primary === server) return
  const fits =
    server.log.length <= primary.log.length && server.log[server.log.length - 1] === primary.log[server.log.length - 1]
  if (server.isStandby && fits) {
    if (server.state === "down") server.start()
    if (server.upstream !== primary.host) server.follow(primary.host)
    return
  }
  server.crash("process")
  server.clone(primary)
}

const byKind: Readonly<Record<FaultKind, (scene: Scene, fault: Fault, chance: Chance) => Heal | undefined>> = {
  crash: (scene, fault) => {
    const server = anyOf(scene, fault)
    server.crash("process")
    return restart(server)
  },
  "lose host": (scene, fault) => {
    const server = anyOf(scene, fault)
    server.crash("host")
    return restart(server)
  },
  stop: (scene, fault) => {
    const server = anyOf(scene, fault)
    server.stop()
    return restart(server)
  },
  freeze: (scene, fault) => {
    const server = anyOf(scene, fault)
    server.freeze()
    return () => server.thaw()
  },
  partition: (scene, fault) => link(scene, fault, { state: "held" }),
  refuse: (scene, fault) => link(scene, fault, { state: "refused" }),
  reset: ({ cluster, network }, fault) => {
    const { host } = cluster.servers[fault.target % cluster.servers.length]!
    for (const connection of [...network.connections]) if (connection.host === host) connection.reset()
    return undefined
  },
  cut: ({ network }, _, chance) => {
    const all = [...network.connections].filter(({ state }) => state === "open")
    if (all.length === 0) return undefined
    const connection = chance.pick(all)
    const pipe = chance.is(0.5) ? connection.toServer : connection.toClient
    pipe.budget = chance.below(400)
    return undefined
  },
  "lost answer": (scene, _, chance) => {
    const { primary } = scene.cluster
    if (primary === undefined) return undefined
    primary.losesAnswers = chance
    return () => {
      primary.losesAnswers = undefined
    }
  },
  "slow link": ({ cluster, clients, network }, fault, chance) => {
    const client = clients[fault.router]!
    const { host } = anyOf({ cluster }, fault)
    const { usual } = network.link(client, host)
    network.setLink(client, host, { latency: chance.between(2, 40), jitter: chance.between(0, 30) })
    return () => network.setLink(client, host, usual)
  },
  "slow server": (scene, fault, chance) => {
    const server = anyOf(scene, fault)
    server.slowness = chance.between(5, 200)
    return () => {
      server.slowness = 1
    }
  },
  "slow replay": (scene, fault, chance) => {
    const server = standbyOf(scene, fault)
    if (server === undefined) return undefined
    server.replayDelay = chance.between(5, 800)
    return () => {
      server.replayDelay = 0
    }
  },
  "pause replay": (scene, fault) => {
    const server = standbyOf(scene, fault)
    server?.setReplayPaused(true)
    return server === undefined ? undefined : () => server.setReplayPaused(false)
  },
  conflict: (scene, fault) => {
    if (fault.target % 2 === 0) scene.cluster.primary?.vacuum()
    else standbyOf(scene, fault)?.conflict()
    return undefined
  },
  "split standby": (scene, fault) => {
    const standby = standbyOf(scene, fault)
    const { primary } = scene.cluster
    if (standby === undefined || primary === undefined) return undefined
    scene.network.setLink(primary.host, standby.host, { state: "held" })
    return () => scene.network.setLink(primary.host, standby.host, { state: "up" })
  },
  "read-only": (scene) => {
    const { primary } = scene.cluster
    if (primary === undefined) return undefined
    primary.isReadOnly = true
    return () => {
      primary.isReadOnly = false
    }
  },
  terminate: (scene, fault, chance) => {
    anyOf(scene, fault).disconnect(terminated, () => chance.is(0.5))
    return undefined
  },
  promote: (scene, fault, chance) => {
    const { primary } = scene.cluster
    const chosen = standbyOf(scene, fault)
    if (chosen === undefined || primary === undefined) return undefined
    // The one that takes over may lack what others have.
    const lag = chance.is(0.5) ? chance.between(10, lagsWithin) : 0
    const link = (state: "held" | "up") => scene.network.setLink(primary.host, chosen.host, { state })
    if (lag > 0) link("held")
    scene.world.after(lag, () => {
      if (chance.is(0.4)) primary.stop()
      else primary.crash("process")
      if (lag > 0) scene.world.after(10, () => link("up"))
    })
    scene.world.after(lag + chance.between(10, promotesWithin), () => promote(scene, chosen, chance))
    return undefined
  },
  "split brain": (scene, fault, chance) => {
    const chosen = standbyOf(scene, fault)
    const { primary } = scene.cluster
    if (chosen === undefined || primary === undefined || chosen.state !== "up") return undefined
    if (!isNewest(scene.cluster, chosen)) return undefined
    scene.world.tell(`nemesis: ${chosen.host} is promoted while ${primary.host} goes on`)
    chosen.promote()
    scene.world.after(chance.between(200, rejoinsWithin), () => {
      for (const server of scene.cluster.servers) rejoin(scene.cluster, server)
    })
    return undefined
  },
  "long split brain": (scene, fault, chance) => {
    const chosen = standbyOf(scene, fault)
    const { primary } = scene.cluster
    if (chosen === undefined || primary === undefined || chosen.state !== "up") return undefined
    if (!isNewest(scene.cluster, chosen)) return undefined
    scene.world.tell(`nemesis: ${chosen.host} is promoted, and ${primary.host} goes on`)
    chosen.promote()
    for (const server of scene.cluster.servers) {
      // The others follow the old one until then.
      if (server === chosen || server === primary || chance.is(0.5)) continue
      scene.world.after(chance.between(20, rejoinsWithin), () => rejoin(scene.cluster, server))
    }
    return () => {
      for (const server of scene.cluster.servers) rejoin(scene.cluster, server)
    }
  },
  stall: ({ world }, fault) => {
    world.stall(fault.millis)
    return undefined
  },
  restore: (scene, fault, chance) => {
    const server = standbyOf(scene, fault)
    if (server === undefined) return undefined
    const age = chance.between(500, 4000)
    const behind = chance.between(500, 3000)
    server.crash("process")
    return () => server.restore(age, behind)
  }
}

const anyOf = ({ cluster }: Pick<Scene, "cluster">, { target }: Fault): Server =>
  cluster.servers[target % cluster.servers.length]!

const standbyOf = ({ cluster }: Scene, { target }: Fault): Server | undefined => {
  const standbys = cluster.servers.filter(({ isStandby, state }) => isStandby && state === "up")
  return standbys[target % Math.max(1, standbys.length)]
}

const link = (scene: Scene, fault: Fault, change: { readonly state: "held" | "refused" }): Heal => {
  const client = scene.clients[fault.router]!
  const { host } = anyOf(scene, fault)
  scene.network.setLink(client, host, change)
  return () => scene.network.setLink(client, host, { state: "up" })
}

/** Faults that do not keep a router from noticing which server takes the writes. */
const quiet: ReadonlySet<FaultKind> = new Set([
  "long split brain",
  "slow replay",
  "pause replay",
  "conflict",
  "split standby"
])

/** Plans the faults. `injected` counts those that had something to happen to. */
export const unleash = (scene: Scene, faults: ReadonlyArray<Fault>, injected: Map<FaultKind, number>): void => {
  for (const fault of faults) {
    scene.world.at(fault.at, () => {
      scene.world.tell(
        `nemesis: ${fault.kind} (${fault.target}, router ${fault.router + 1}) for ${fault.millis.toFixed(0)} ms`
      )
      if (!quiet.has(fault.kind)) scene.noise.until(Math.max(overAt(fault), fault.at + fault.millis))
      const heal = byKind[fault.kind](scene, fault, new Chance(fault.seed))
      injected.set(fault.kind, (injected.get(fault.kind) ?? 0) + 1)
      if (heal !== undefined) {
        scene.world.after(fault.millis, () => {
          scene.world.tell(`nemesis: ${fault.kind} ends`)
          heal()
        })
      }
    })
  }
}

/** Ends all faults: every server up, one primary, the others follow it. */
export const healAll = ({ clients, cluster, network, noise, world }: Scene): void => {
  world.tell("nemesis: everything heals")
  noise.until(world.now + settleLimit)
  const hosts = [...clients, ...cluster.servers.map(({ host }) => host)]
  for (const one of hosts) {
    for (const other of hosts) {
      if (one < other) network.setLink(one, other, { state: "up", latency: 0.3, jitter: 0.2 })
    }
  }
  network.forgetCuts()
  for (const server of cluster.servers) {
    server.thaw()
    server.slowness = 1
    server.replayDelay = 0
    server.isReadOnly = false
    server.losesAnswers = undefined
    server.setReplayPaused(false)
    if (server.state === "down") server.start()
  }
  // Until then servers may be starting, or be no standby of the newest primary yet.
  const settle = (left: number) => {
    const { primary } = cluster
    if (primary?.state === "up") for (const server of cluster.servers) rejoin(cluster, server)
    if (left > 0 && !isSettled(cluster)) world.after(settleEvery, () => settle(left - 1))
  }
  world.after(settleEvery, () => settle(settleLimit / settleEvery))
}

/** How often what has to follow the primary is told so after everything has healed, and how long at most, in milliseconds. */
export const settleEvery = 250
export const settleLimit = 6000

/** Whether every server is up, and has what the primary has. */
export const isSettled = ({ primary, servers }: Cluster): boolean =>
  primary !== undefined &&
  servers.every(
    (server) =>
      server.state === "up" &&
      (server === primary ||
        (server.isStandby &&
          server.hasReceiver &&
          server.upstream === primary.host &&
          server.replayed >= primary.flushed))
  )

/** From when on nothing of a fault happens any more, but that it is healed. */
export const overAt = ({ at, kind }: Fault): number =>
  at + (kind === "promote" ? lagsWithin + promotesWithin + rejoinsWithin : kind === "split brain" ? rejoinsWithin : 0)
