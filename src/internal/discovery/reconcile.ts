/**
 * Keeps the engines as the topology has them: new servers join, those that have moved are followed, those that are gone are
 * drained and closed.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Engine } from "../../Engine.js"
import type { TopologyError } from "../../RouterError.js"
import type { Member } from "../../Topology.js"
import type { ResolvedEngine } from "../engine/settings.js"
import type { Monitor } from "../health/monitor.js"
import type { Servers } from "../health/serverSet.js"
import { Complaints } from "../telemetry/logOnce.js"
import * as member from "./memberConfig.js"

/** An engine, and what closes it. */
export interface Owned {
  readonly engine: Engine
  readonly scope: Scope.CloseableScope
}

export interface Options {
  readonly members: Effect.Effect<ReadonlyArray<Member>, TopologyError>
  readonly servers: Servers
  /** The first engine of the default group. */
  readonly template: ResolvedEngine
  /** Makes an engine that is closed with the router, or before. */
  readonly make: (config: ResolvedEngine) => Effect.Effect<Owned>
  /** The engines of the servers. */
  readonly owned: ReadonlyArray<Owned>
  /** Those that may be the primary; grows. */
  readonly named: Set<Engine>
  /** Names that engines of other groups have. */
  readonly taken: ReadonlySet<string>
  /** That of the router. */
  readonly scope: Scope.Scope
}

export class Discovery {
  private readonly owned: Map<Engine, Scope.CloseableScope>
  private readonly roles = new Map<string, Member["role"]>()
  private readonly complaints = new Complaints()
  private monitor: Monitor | undefined

  constructor(private readonly options: Options) {
    this.owned = new Map(options.owned.map(({ engine, scope }) => [engine, scope]))
  }

  /** Watches what is new from now on. */
  start(monitor: Monitor): void {
    this.monitor = monitor
  }

  /** Reads the topology once. A failure changes nothing. */
  readonly read: Effect.Effect<void> = Effect.suspend(() => this.options.members).pipe(
    Effect.flatMap((members) =>
      members.length === 0
        ? this.complaints.of("topology", "The topology has no servers; the router stays with those it has")
        : Effect.zipRight(this.complaints.over("topology", "The topology has servers again"), this.apply(members))
    ),
    Effect.catchAll((error) => this.complaints.of("topology", error.message))
  )

  private apply(members: ReadonlyArray<Member>): Effect.Effect<void> {
    return Effect.gen(this, function* () {
      const { named, servers } = this.options
      const engines: Array<Engine> = []
      // Before a probe has found the role of a server, the role that the topology states decides the order.
      const inOrder = [...members].sort((a, b) => Number(b.role === "primary") - Number(a.role === "primary"))
      for (const one of inOrder) {
        const engine = yield* this.engineOf(one)
        if (engine === undefined) continue
        engines.push(engine)
        named.add(engine)
        servers.setTakesReads(engine, one.reads ?? true)
        this.heed(engine, one.role)
      }
      if (engines.length > 0) servers.setEngines(engines)
      for (const [engine, scope] of this.owned) {
        if (!servers.has(engine)) yield* this.dismiss(engine, scope)
      }
    })
  }

  /** The engine of a member, as the member has it; `undefined` when it cannot be one. */
  private engineOf(one: Member): Effect.Effect<Engine | undefined> {
    return Effect.gen(this, function* () {
      const { taken, template } = this.options
      const name = member.nameOf(one, template)
      const engines = [...this.owned.keys()]
      const found =
        engines.find((engine) => engine.name === name) ??
        (one.name === undefined ? engines.find((engine) => member.isAt(engine, one, template)) : undefined)
      if (found === undefined && taken.has(name)) {
        yield* this.complaints.of(
          name,
          `The topology has a server ${name}, which is the name of an engine of another group`
        )
        return undefined
      }
      const resolved = member.resolve(found === undefined ? one : { ...one, name: found.name }, template)
      if (Either.isLeft(resolved)) {
        yield* this.complaints.of(name, resolved.left.message)
        return found
      }
      if (found === undefined) return yield* this.join(resolved.right)
      found.setWritable(one.writable ?? true)
      found.setShare(one.weight ?? found.weight, one.zone ?? found.zone)
      if (!member.isAt(found, one, template) || hasOwnSettings(one)) yield* this.move(found, resolved.right)
      return found
    })
  }

  private join(config: ResolvedEngine): Effect.Effect<Engine> {
    return Effect.gen(this, function* () {
      const { engine, scope } = yield* this.options.make(config)
      this.owned.set(engine, scope)
      // Before the start, all are watched from there on.
      if (this.monitor !== undefined) yield* Scope.extend(this.monitor.add(engine), scope)
      return engine
    })
  }

  private move(engine: Engine, config: ResolvedEngine): Effect.Effect<void> {
    const { name } = engine
    if (member.isSameClient(engine.client, config.client)) return Effect.void
    return (this.monitor?.rebind(engine, config) ?? engine.rebind(config)).pipe(
      Effect.zipRight(this.complaints.over(name, `${name} is where the topology has it`)),
      Effect.catchAll((error) =>
        this.complaints.of(
          name,
          `The topology has ${name} on another server, which does not answer; it stays where it is`,
          error.cause
        )
      )
    )
  }

  /** What a topology says of roles is news for the probes. */
  private heed({ name }: Engine, role: Member["role"]): void {
    if (role === undefined || this.roles.get(name) === role) return
    this.roles.set(name, role)
    for (const engine of this.owned.keys()) this.monitor?.hasten(engine)
  }

  private dismiss(engine: Engine, scope: Scope.CloseableScope): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.owned.delete(engine)
      this.options.named.delete(engine)
      this.roles.delete(engine.name)
      const closed = Effect.zipRight(this.monitor?.remove(engine) ?? Effect.void, Scope.close(scope, Exit.void))
      return Effect.asVoid(Effect.forkIn(closed, this.options.scope))
    })
  }
}

const hasOwnSettings = ({ serverName, settings }: Member): boolean => serverName !== undefined || settings !== undefined
