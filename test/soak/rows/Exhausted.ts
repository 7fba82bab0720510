/** A replica whose last connection another program has taken. */
import { Effect, Redacted } from "effect"
import type { PgCluster } from "effect-db-router/testing"
import * as Pg from "pg"
import * as Rig from "../Rig.js"
import { type Row, seconds } from "../Row.js"
import { awaitStatus, statusOf } from "../Servers.js"
import { back, noFailedRead, writesGoOn } from "./Killed.js"
import { cutStreams } from "./Terminated.js"

/** SQLSTATE too_many_connections. */
const tooMany = "53300"

const connect = async (node: PgCluster.Node): Promise<Pg.Client> => {
  const client = new Pg.Client({ connectionString: Redacted.value(node.url), application_name: "hoarder" })
  client.on("error", () => {})
  await client.connect()
  return client
}

/** Takes every connection that a server has, those reserved for superusers too, and each that becomes free. */
class Hoarder {
  refused = 0
  private isOpen = true
  private readonly taken: Array<Pg.Client> = []
  private taking: Promise<unknown> = Promise.resolve()

  private constructor(
    private readonly node: PgCluster.Node,
    private readonly admin: Pg.Client
  ) {}

  static async on(node: PgCluster.Node): Promise<Hoarder> {
    const hoarder = new Hoarder(node, await connect(node))
    hoarder.taking = Promise.all([hoarder.take(), hoarder.take(), hoarder.take()])
    while (hoarder.refused === 0) await pause()
    return hoarder
  }

  /** Ends the connections of another program. */
  async end(applicationName: string): Promise<void> {
    await this.admin.query(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE $1 || '%'",
      [applicationName]
    )
  }

  async giveBack(): Promise<void> {
    if (!this.isOpen) return
    this.isOpen = false
    await this.taking
    await Promise.all([this.admin, ...this.taken].map((client) => client.end()))
  }

  private async take(): Promise<void> {
    while (this.isOpen) {
      try {
        this.taken.push(await connect(this.node))
      } catch (error) {
        if (!(error instanceof Error) || !("code" in error) || error.code !== tooMany) throw error
        this.refused++
        await pause()
      }
    }
  }
}

const pause = () => new Promise((resolve) => setTimeout(resolve, 20))

export const row: Row = {
  name: "exhausted",
  fault: "max_connections exhausted on a replica",
  mustShow: "0 failed reads",
  run: (cluster, pace) =>
    Rig.run(Rig.on(cluster, pace, "exhausted"), (rig) =>
      Effect.gen(function* () {
        const replica = cluster.replicas[0]!
        const { load, router } = rig
        load.tally.begin("exhausted")
        const hoarder = yield* Effect.promise(() => Hoarder.on(replica))
        return yield* Effect.gen(function* () {
          const full = performance.now()
          // The router has some of the connections: it has to ask for new ones, again if it is the first to get one.
          const end = Effect.zipRight(
            Effect.promise(() => hoarder.end(rig.applicationName)),
            Effect.sleep("250 millis")
          )
          const out = yield* Effect.raceFirst(
            awaitStatus(router, replica.name, ({ state }) => state === "down"),
            Effect.forever(end)
          )
          const { reason } = yield* statusOf(router, replica.name)
          yield* Effect.sleep(pace.away)
          yield* Effect.promise(() => hoarder.giveBack())
          const free = performance.now()
          const answered = yield* load.answerFrom(replica.port)
          yield* Effect.sleep(pace.steady)
          return [
            noFailedRead(rig),
            {
              measured: `out after ${seconds(out - full)}: ${reason}`,
              met: /too many clients|reserved/.test(reason ?? "")
            },
            back(rig, replica.name, free, answered),
            cutStreams(rig),
            writesGoOn(rig)
          ]
        }).pipe(Effect.ensuring(Effect.promise(() => hoarder.giveBack())))
      })
    )
}
