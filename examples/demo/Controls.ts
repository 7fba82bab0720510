/**
 * What the status page can do to the demo's own servers: everything that goes wrong with servers in time.
 */
import { Context, Effect } from "effect"
import type { HttpStatus } from "effect-db-router"
import type { PgCluster } from "effect-db-router/testing"

type Does = Effect.Effect<void, PgCluster.PgClusterError>

/** The state in which a server was left. The router finds the primary by itself. */
interface State {
  readonly node: PgCluster.Node
  condition: "running" | "killed" | "frozen"
  isPaused: boolean
  /** It has missed a promotion, and is rebuilt as a copy of another server before it comes back. */
  isOutdated: boolean
}

export class Controls extends Context.Tag("demo/Controls")<
  Controls,
  {
    /** The buttons of a server. */
    readonly actions: NonNullable<HttpStatus.Options["actions"]>
    /** Resumes the frozen servers, so that the shutdown need not wait for them. */
    readonly release: Effect.Effect<void>
  }
>() {}

/** Controls of servers that the demo has not started: none. */
export const none: Context.Tag.Service<Controls> = { actions: () => [], release: Effect.void }

class Cluster {
  private readonly states: ReadonlyMap<string, State>
  private primary: State

  constructor(cluster: PgCluster.Cluster) {
    this.states = new Map(
      cluster.nodes.map((node) => [node.name, { node, condition: "running", isPaused: false, isOutdated: false }])
    )
    this.primary = this.states.get(cluster.primary.name)!
  }

  readonly actions: NonNullable<HttpStatus.Options["actions"]> = ({ name }) => {
    const state = this.states.get(name)
    if (state === undefined) return []
    const { condition, isPaused } = state
    if (condition === "killed") return [{ label: "Start", run: this.start(state) }]
    const kill = { label: "Kill", run: this.kill(state) }
    const promote = { label: "Promote", run: this.promote(state) }
    const isReplica = state !== this.primary && !state.isOutdated
    if (condition === "frozen") return [kill, { label: "Thaw", run: this.thaw(state) }]
    const freeze = { label: "Freeze", run: this.freeze(state) }
    const replay = isPaused
      ? { label: "Resume replay", run: this.resume(state) }
      : { label: "Pause replay", run: this.pause(state) }
    return isReplica ? [kill, freeze, replay, promote] : [kill, freeze]
  }

  readonly release = Effect.suspend(() =>
    Effect.forEach(
      [...this.states.values()].filter(({ condition }) => condition === "frozen"),
      (state) => Effect.ignore(this.thaw(state)),
      { discard: true }
    )
  )

  private kill(state: State): Does {
    return Effect.zipRight(
      state.node.kill,
      Effect.sync(() => {
        state.condition = "killed"
        state.isPaused = false
      })
    )
  }

  private start(state: State): Does {
    const { node } = state
    const { primary } = this
    const joins = state.isOutdated && primary.condition === "running"
    return Effect.zipRight(
      joins ? node.rejoin(primary.node) : node.start,
      Effect.sync(() => {
        state.condition = "running"
        if (joins) state.isOutdated = false
      })
    )
  }

  private freeze(state: State): Does {
    return Effect.zipRight(
      state.node.freeze,
      Effect.sync(() => (state.condition = "frozen"))
    )
  }

  private thaw(state: State): Does {
    return Effect.zipRight(
      state.node.thaw,
      Effect.sync(() => (state.condition = "running"))
    )
  }

  private pause(state: State): Does {
    return Effect.zipRight(
      state.node.pauseReplay,
      Effect.sync(() => (state.isPaused = true))
    )
  }

  private resume(state: State): Does {
    return Effect.zipRight(
      state.node.resumeReplay,
      Effect.sync(() => (state.isPaused = false))
    )
  }

  /** Promotes as a cluster manager does: the old primary is stopped first, so that there are never two. */
  private promote(state: State): Does {
    return Effect.gen(this, function* () {
      const before = this.primary
      if (before.condition !== "killed") yield* this.kill(before)
      if (state.isPaused) yield* this.resume(state)
      yield* state.node.promote
      this.primary = state
      for (const other of this.states.values()) {
        if (other === state) continue
        other.isOutdated = true
        if (other.condition !== "running") continue
        if (other.isPaused) yield* this.resume(other)
        yield* Effect.orElse(other.node.follow(state.node), () => other.node.rejoin(state.node))
        other.isOutdated = false
      }
    })
  }
}

/** Buttons for a cluster of the demo's own. */
export const make = (cluster: PgCluster.Cluster): Context.Tag.Service<Controls> => new Cluster(cluster)
