/**
 * The tokens of one router: which texts it believes, and what it gives out. Knows nothing of servers.
 */

import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Fiber from "effect/Fiber"
import * as FiberRef from "effect/FiberRef"
import { globalValue } from "effect/GlobalValue"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Position from "../../Position.js"
import * as RoutingContext from "../../RoutingContext.js"
import { attributes, rejectedTokens } from "../../Telemetry.js"
import * as Token from "../../Token.js"
import * as Seen from "../context/causalState.js"
import { Later } from "../util/later.js"
import * as Log from "../validation/log.js"

/** The positions that a flow has seen. */
export interface Settled {
  readonly positions: ReadonlyArray<Position.Position>
  /** The flow has seen more than these, up to an unknown position. */
  readonly isOpen: boolean
}

/** The state of a router's servers, as far as tokens need it. */
export interface Source {
  /** Where the primary was when it last said so. */
  readonly known: () => Position.Position | undefined
  /** The system of the primary, also while its position is not known: its connection may just have broken. */
  readonly system: () => string | undefined
  /** Where it is now; `undefined` when it does not say so soon. */
  readonly ask: Effect.Effect<Position.Position | undefined>
  /** Looks at all servers, whether one of them is the primary of a newer timeline. Ends soon, and may be asked for at any rate. */
  readonly look: Effect.Effect<void>
  /** What the flow of a fiber has seen, as far as that can be known soon. */
  readonly settled: (fiber: Fiber.RuntimeFiber<unknown, unknown>) => Effect.Effect<Settled>
}

/** The key of a process that was given none. */
const ownKeys = globalValue("effect-db-router/Tokens/ownKeys", () => ({ keys: undefined as Token.Keys | undefined }))

const randomKeys: Effect.Effect<Token.Keys> = Effect.suspend(() => {
  if (ownKeys.keys !== undefined) return Effect.succeed(ownKeys.keys)
  return Effect.flatMap(Token.randomKeys, (keys) => {
    ownKeys.keys = keys
    return Effect.as(
      Log.warning(
        "Tokens are signed with a random key: other processes, and this one after a restart, ignore them. " +
          "Set the option tokens.keys, or the variable DB_ROUTER_TOKEN_KEYS"
      ),
      keys
    )
  })
})

const byService = globalValue("effect-db-router/Tokens/byService", () => new WeakMap<object, Tokens>())

/** The services that stand for a router, whichever of them an effect has. */
const serviceKeys = ["effect-db-router/DbRouter", "@effect/sql/SqlClient", "@effect/sql-pg/PgClient"]

/** The tokens of one router. */
export class Tokens {
  /** Where the primary is, asked after this was called. */
  private readonly fresh: Later<Position.Position | undefined>

  constructor(
    private readonly options: Token.Resolved,
    private readonly source: Source
  ) {
    this.fresh = new Later(source.ask)
  }

  /** Those of a router, or of its client. */
  static ofService(service: object): Tokens | undefined {
    return byService.get(service)
  }

  /** Those of the router in a context. */
  static of(context: Context.Context<never>): Tokens | undefined {
    for (const key of serviceKeys) {
      const tokens = byService.get(context.unsafeMap.get(key))
      if (tokens !== undefined) return tokens
    }
    return undefined
  }

  /** Makes them those of a context that has one of these services. */
  serve(...services: ReadonlyArray<object>): void {
    for (const service of services) byService.set(service, this)
  }

  /** How long a token is good for. */
  get lifetime(): Duration.Duration {
    return this.options.lifetime
  }

  /** A token that says a position, from now on. */
  issue(position: Position.Position): Effect.Effect<string> {
    return Effect.zipWith(this.keys, Clock.currentTimeMillis, (keys, now) =>
      Token.encode(keys, position, { expiresAt: now + Duration.toMillis(this.lifetime) })
    )
  }

  /** The position that a text is a token of; none, and counted, where it is not to be believed. */
  accept(text: string): Effect.Effect<Option.Option<Position.Position>> {
    return Effect.gen(this, function* () {
      const decoded = Token.decode(yield* this.keys, text, yield* Clock.currentTimeMillis)
      if (Either.isLeft(decoded)) return yield* reject(decoded.left)
      return yield* this.verify(decoded.right.position)
    })
  }

  /** The same for a position that cannot be forged. */
  verify(position: Position.Position): Effect.Effect<Option.Option<Position.Position>> {
    return Effect.flatMap(this.isPossible(position), (possible) =>
      possible ? Effect.succeedSome(position) : reject("impossible")
    )
  }

  /**
   * The position that other flows need to see all of the flow of the fiber that runs this: its furthest position of the system.
   * Where that is unknown, it is the primary's present position. Where that is unknown too, others need the primary, as with a
   * position from before a promotion.
   */
  readonly position: Effect.Effect<Position.Position | undefined> = Effect.withFiberRuntime((fiber) =>
    Effect.flatMap(this.source.settled(fiber), ({ isOpen, positions }) => {
      if (!isOpen) return Effect.succeed(this.latestOf(positions))
      return Effect.map(this.fresh.get, (fresh) => {
        if (fresh !== undefined) return this.latestOf([...positions, fresh])
        const system = this.systemOf(positions)
        return system === undefined ? undefined : { system, timeline: 0, lsn: 0n }
      })
    })
  )

  private systemOf(positions: ReadonlyArray<Position.Position>): string | undefined {
    return this.source.known()?.system ?? positions[0]?.system ?? this.source.system()
  }

  private latestOf(positions: ReadonlyArray<Position.Position>): Position.Position | undefined {
    const system = this.systemOf(positions)
    return positions
      .filter((position) => position.system === system)
      .reduce<Position.Position | undefined>(
        (last, position) => (last === undefined || isBefore(last, position) ? position : last),
        undefined
      )
  }

  private get keys(): Effect.Effect<Token.Keys> {
    const { keys } = this.options
    return keys === undefined ? randomKeys : Effect.succeed(keys)
  }

  private isPossible(position: Position.Position): Effect.Effect<boolean> {
    const known = this.source.known()
    if (known !== undefined && Token.isPossible(position, known)) return Effect.succeed(true)
    return Effect.flatMap(this.fresh.get, (fresh) => {
      if (mayBe(position, fresh)) return Effect.succeed(true)
      // A standby was promoted, and this router has not noticed yet. Only who has the key can say so.
      return fresh !== undefined && position.system === fresh.system && position.timeline > fresh.timeline
        ? Effect.zipRight(
            this.source.look,
            Effect.map(this.fresh.get, (fresh) => mayBe(position, fresh))
          )
        : Effect.succeed(false)
    })
  }
}

/** A primary that says nothing does not refute it. */
const mayBe = (position: Position.Position, fresh: Position.Position | undefined): boolean =>
  fresh === undefined || Token.isPossible(position, fresh)

/** Counts a token that is ignored. */
export const reject = (reason: Token.Rejection | "unavailable"): Effect.Effect<Option.Option<never>> =>
  Effect.as(Metric.increment(Metric.tagged(rejectedTokens, attributes.errorType, reason)), Option.none())

/** Whether the one position of a system is before the other: a later timeline holds the data of those before. */
export const isBefore = (self: Position.Position, that: Position.Position): boolean =>
  self.system === that.system &&
  (self.timeline < that.timeline || (self.timeline === that.timeline && self.lsn < that.lsn))

/** Runs an effect in a flow that has seen a position too, and that has not when it is over. */
export const seeing = <A, E, R>(self: Effect.Effect<A, E, R>, position: Position.Position): Effect.Effect<A, E, R> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(FiberRef.get(RoutingContext.flow), (flow) => {
      const before = flow.seen
      const added = Seen.withPosition(before, position)
      if (added === before) return restore(self)
      const set = (change: (seen: Seen.Seen) => Seen.Seen) =>
        FiberRef.update(RoutingContext.flow, (flow) => flow.to(change(flow.seen)))
      const inside = Effect.zipRight(
        set(() => added),
        restore(self)
      )
      // All fibers of a session have one flow: there it stays.
      return flow.shared === undefined
        ? Effect.ensuring(
            inside,
            set((seen) => without(seen, position, before))
          )
        : inside
    })
  )

const without = (seen: Seen.Seen, position: Position.Position, before: Seen.Seen): Seen.Seen => ({
  ...seen,
  positions: seen.positions.flatMap((other) =>
    Position.isComparable(other, position) && other.lsn === position.lsn
      ? before.positions.filter((known) => Position.isComparable(known, position))
      : [other]
  )
})

/** The token of the flow of a fiber, for `Consistency.currentToken`. */
export const current: Effect.Effect<Option.Option<string>> = Effect.withFiberRuntime((fiber) => {
  const tokens = Tokens.of(fiber.currentContext)
  if (tokens === undefined) return Effect.succeedNone
  return Effect.flatMap(tokens.position, (position) =>
    position === undefined ? Effect.succeedNone : Effect.asSome(tokens.issue(position))
  )
})

/** Runs an effect in a flow that has seen what a token says, for `Consistency.withToken`. */
export const using = <A, E, R>(self: Effect.Effect<A, E, R>, token: string): Effect.Effect<A, E, R> =>
  Effect.withFiberRuntime((fiber) => {
    const tokens = Tokens.of(fiber.currentContext)
    return Effect.flatMap(
      tokens === undefined ? reject("unavailable") : tokens.accept(token),
      Option.match({ onNone: () => self, onSome: (position) => seeing(self, position) })
    )
  })
