/** The nemesis: pauses, delays, kills and promotes servers, at random, in the same order for the same seed. */
import { Effect, Utils } from "effect"
import type { PgCluster } from "effect-db-router/testing"

type Act = Effect.Effect<string, PgCluster.PgClusterError>

export interface Options {
  readonly seed: number
  /** How often a standby is promoted in place of the primary, at most. */
  readonly promotions: number
  /** How long each trouble lasts, in milliseconds: this much, or up to three times that. */
  readonly trouble: number
}

export class Nemesis {
  /** What it has done, in its order. */
  readonly deeds: Array<string> = []
  private readonly random: Utils.PCGRandom
  private promotionsLeft: number

  constructor(
    private readonly cluster: PgCluster.Cluster,
    private readonly options: Options
  ) {
    this.random = new Utils.PCGRandom(options.seed)
    this.promotionsLeft = options.promotions
  }

  /** One trouble after the other, each of which it ends itself. */
  run(isOver: () => boolean): Effect.Effect<void, PgCluster.PgClusterError> {
    return Effect.suspend(() => (isOver() ? Effect.void : Effect.zipRight(this.once, this.run(isOver))))
  }

  private readonly once: Effect.Effect<void, PgCluster.PgClusterError> = Effect.gen(this, function* () {
    const primary = yield* this.cluster.currentPrimary
    const standbys = this.cluster.nodes.filter((node) => node !== primary)
    const victim = standbys[this.random.integer(standbys.length)]!
    const acts: ReadonlyArray<Act> = [
      this.pausing([victim]),
      this.pausing([victim]),
      this.pausing(standbys),
      this.delaying(victim),
      this.killing(victim),
      ...(this.promotionsLeft > 0 ? [this.promoting(primary, standbys)] : [])
    ]
    this.deeds.push(yield* acts[this.random.integer(acts.length)]!)
    yield* this.while
  })

  private get while(): Effect.Effect<void> {
    return Effect.sleep(this.options.trouble * (1 + 2 * this.random.number()))
  }

  private pausing(nodes: ReadonlyArray<PgCluster.Node>): Act {
    const all = (what: "pauseReplay" | "resumeReplay") => Effect.forEach(nodes, (node) => node[what], { discard: true })
    return Effect.as(
      Effect.acquireUseRelease(
        all("pauseReplay"),
        () => this.while,
        () => Effect.orDie(all("resumeReplay"))
      ),
      `paused ${nodes.map(({ name }) => name).join(" and ")}`
    )
  }

  private delaying(node: PgCluster.Node): Act {
    const delay = (value: string) =>
      Effect.zipRight(
        node.query(`alter system set recovery_min_apply_delay = '${value}'`),
        node.query("select pg_reload_conf()")
      )
    return Effect.as(
      Effect.acquireUseRelease(
        delay("150ms"),
        () => this.while,
        () => Effect.orDie(delay("0"))
      ),
      `delayed ${node.name}`
    )
  }

  private killing(node: PgCluster.Node): Act {
    return Effect.as(Effect.zipRight(node.kill, Effect.zipRight(this.while, node.start)), `killed ${node.name}`)
  }

  /** A commit is acknowledged once a standby has it, so the one that has most has all that was acknowledged. */
  private promoting(primary: PgCluster.Node, standbys: ReadonlyArray<PgCluster.Node>): Act {
    return Effect.gen(this, function* () {
      this.promotionsLeft--
      yield* primary.kill
      const found = yield* Effect.forEach(standbys, (node) =>
        Effect.map(node.query<{ at: string }>("select (pg_last_wal_receive_lsn() - '0/0')::text as at"), ([row]) => ({
          node,
          at: BigInt(row!.at)
        }))
      )
      const [first, ...others] = found.sort((a, b) => (a.at < b.at ? 1 : -1)).map(({ node }) => node)
      yield* first!.promote
      for (const node of others) yield* node.rejoin(first!)
      yield* primary.rejoin(first!)
      return `promoted ${first!.name}`
    })
  }
}
