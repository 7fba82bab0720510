/**
 * A read that a replica has not answered after a while also goes to another replica: the first success counts, the other
 * one is cancelled. No fiber is started before the while has passed.
 */
import type { SqlError } from "@effect/sql/SqlError"
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as MetricLabel from "effect/MetricLabel"
import type { Engine } from "../../Engine.js"
import { attributes, hedgedReads } from "../../Telemetry.js"
import { judge } from "../driver/failure.js"
import type { Request, Result } from "../driver/pool.js"
import { type Place, Queue } from "../util/linkedQueue.js"

/** How many reads may be sent twice at once after a time in which none was. */
export const burst = 10

/** How many reads may be sent twice: a share of those that there are, so that a slow day is not doubled. */
export class Share {
  private credit = 1

  constructor(private readonly share: number) {}

  /** One more read. */
  count(): void {
    this.credit = Math.min(burst, this.credit + this.share)
  }

  /** Whether a read may be sent twice now. */
  get isLeft(): boolean {
    return this.credit >= 1
  }

  /** A read is sent twice. */
  take(): void {
    this.credit--
  }
}

/** Where a read was answered. */
export interface Answer {
  readonly engine: Engine
  readonly result: Result
  /** Whether that was the second one that it was sent to. */
  readonly isHedge: boolean
}

/** A read that has failed on an engine, and maybe on a second one. */
export interface Failed {
  readonly engine: Engine
  readonly error: SqlError
  readonly other: { readonly engine: Engine; readonly error: SqlError } | undefined
}

/** A read, where it may go. */
export interface Options {
  readonly request: Request
  /** The first engine. */
  readonly engine: Engine
  /** The engine for the second time, if there is one now. */
  readonly choose: () => Engine | undefined
  /** Hears that it has been sent there. */
  readonly onHedge: (engine: Engine) => void
}

/** A read on one engine. */
interface Leg {
  readonly engine: Engine
  readonly began: bigint
  cancel: Effect.Effect<void>
  error: SqlError | undefined
}

/** Whether a failure is an answer that another replica would give as well. */
const isAnswer = (error: SqlError, engine: Engine): boolean => {
  const { action } = judge(error, engine.health?.report?.role ?? "replica")
  return action === "caller" || action === "refused"
}

/** One read on its way. */
class Read {
  /** When it is sent to a second engine. */
  readonly due: bigint
  private readonly first: Leg
  private second: Leg | undefined
  private isOver = false
  /** Among those that wait for their time. */
  place: Place<Read> | undefined

  constructor(
    private readonly options: Options,
    private readonly share: Share,
    private readonly timer: Timer,
    private readonly resume: (exit: Exit.Exit<Answer, Failed>) => void
  ) {
    const began = timer.clock.unsafeCurrentTimeNanos()
    this.due = began + timer.after
    this.first = { engine: options.engine, began, cancel: Effect.void, error: undefined }
    this.begin(this.first)
    if (!this.isOver) timer.add(this)
  }

  /** Sends it to a second engine, if there is one and the share is not used up. */
  hedge(): void {
    const { choose, onHedge } = this.options
    const engine = this.share.isLeft ? choose() : undefined
    if (engine === undefined) return
    this.share.take()
    onHedge(engine)
    const began = this.timer.clock.unsafeCurrentTimeNanos()
    this.second = { engine, began, cancel: Effect.void, error: undefined }
    this.begin(this.second)
  }

  /** Cancels it wherever it runs. */
  readonly cancel: Effect.Effect<void> = Effect.suspend(() => {
    this.end()
    const { first, second } = this
    return second === undefined ? first.cancel : Effect.zipRight(first.cancel, second.cancel, { concurrent: true })
  })

  private begin(leg: Leg): void {
    const cancel = leg.engine.begin(this.options.request, (error, result) => {
      if (this.isOver) return
      leg.cancel = Effect.void
      if (error === undefined) this.succeed(leg, result!)
      else this.fail(leg, error)
    })
    if (!this.isOver && leg.error === undefined) leg.cancel = cancel
  }

  private succeed(leg: Leg, result: Result): void {
    this.observe(leg, 0)
    this.settle(leg, Exit.succeed({ engine: leg.engine, result, isHedge: leg === this.second }))
  }

  private fail(leg: Leg, error: SqlError): void {
    leg.error = error
    const other = this.otherThan(leg)
    const isSettled = isAnswer(error, leg.engine)
    // The other one may still answer.
    if (other !== undefined && other.error === undefined && !isSettled) return
    const [cause, also] = other?.error === undefined || isSettled ? [leg, other] : [other, leg]
    this.settle(
      isSettled ? leg : undefined,
      Exit.fail({
        engine: cause.engine,
        error: cause.error!,
        other: also?.error === undefined ? undefined : { engine: also.engine, error: also.error }
      })
    )
  }

  private settle(winner: Leg | undefined, exit: Exit.Exit<Answer, Failed>): void {
    this.end()
    if (this.second !== undefined) {
      const won = winner === undefined ? "neither" : winner === this.first ? "first" : "second"
      hedgedReads.unsafeUpdate(1, [
        MetricLabel.make(attributes.engine, this.first.engine.name),
        MetricLabel.make(attributes.winner, won)
      ])
      const loser = winner === undefined ? undefined : this.otherThan(winner)
      if (loser?.error === undefined && loser !== undefined) {
        // It would have taken longer than this; how long is unknown.
        this.observe(loser, loser.engine.latency)
        Effect.runFork(loser.cancel)
      }
    }
    this.resume(exit)
  }

  private end(): void {
    this.isOver = true
    this.place?.leave()
  }

  private otherThan(leg: Leg): Leg | undefined {
    return leg === this.first ? this.second : this.first
  }

  private observe({ began, engine }: Leg, least: number): void {
    const millis = Number(this.timer.clock.unsafeCurrentTimeNanos() - began) / 1e6
    if (millis > least) engine.observeLatency(millis)
  }
}

/** Sends reads to a second engine when their time has come. One fiber for all of them, and none while there are none. */
class Timer {
  // All wait equally long, so they are due in the order in which they came.
  private readonly reads = new Queue<Read>()
  private fiber: Fiber.RuntimeFiber<void> | undefined
  // Not whether there is a fiber: one that has nothing to wait for is over before `runFork` returns it.
  private isRunning = false

  constructor(
    readonly clock: Clock.Clock,
    /** How long a read waits, in nanoseconds. */
    readonly after: bigint
  ) {}

  add(read: Read): void {
    read.place = this.reads.add(read)
    if (this.isRunning) return
    this.isRunning = true
    this.fiber = Effect.runFork(this.watch)
  }

  readonly stop: Effect.Effect<void> = Effect.suspend(() =>
    this.fiber === undefined ? Effect.void : Effect.asVoid(Fiber.interrupt(this.fiber))
  )

  private readonly watch: Effect.Effect<void> = Effect.suspend(() => {
    const read = this.reads.first
    if (read === undefined) {
      this.isRunning = false
      return Effect.void
    }
    const early = read.due - this.clock.unsafeCurrentTimeNanos()
    if (early > 0n) return Effect.zipRight(this.clock.sleep(Duration.nanos(early)), this.watch)
    read.place?.leave()
    // A strategy of the user's that throws shows that in the reads that choose by it.
    return Effect.zipRight(Effect.ignoreLogged(Effect.try(() => read.hedge())), this.watch)
  })
}

/** The reads of a router that may be sent twice. */
export class Hedges {
  private readonly share: Share
  private readonly after: bigint
  private timer: Timer | undefined

  constructor(options: { readonly after: Duration.Duration; readonly maxShare: number }) {
    this.share = new Share(options.maxShare)
    this.after = Duration.unsafeToNanos(options.after)
  }

  /** One read. */
  read(clock: Clock.Clock, options: Options): Effect.Effect<Answer, Failed> {
    return Effect.async<Answer, Failed>((resume) => {
      this.share.count()
      if (this.timer?.clock !== clock) this.timer = new Timer(clock, this.after)
      return new Read(options, this.share, this.timer, resume).cancel
    })
  }

  /** Sends nothing twice any more. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => this.timer?.stop ?? Effect.void)
}
