/**
 * Notifications: one connection for all the streams of a client, to the server that takes the writes. When it breaks, goes silent,
 * or its server is not the one any more, every stream fails: what was sent meanwhile is lost, and only the consumer can read again
 * what it would have told.
 */
import { SqlError } from "@effect/sql/SqlError"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as PubSub from "effect/PubSub"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Pg from "pg"
import type { Engine } from "../../Engine.js"
import { poolConfig } from "../../Engine.js"
import type * as Health from "../../Health.js"
import * as RouterError from "../../RouterError.js"
import * as Seen from "../context/causalState.js"
import { Connection, type Query } from "../driver/connection.js"
import { acquireFailed } from "../driver/failure.js"
import type { Result } from "../driver/pool.js"
import { answerOf, text as positionText } from "../driver/position.js"
import type { Router } from "../routing/router.js"
import * as bounded from "../util/bounded.js"
import type { Restore } from "../util/restore.js"
import { Mark } from "../wal/lsnTracker.js"

/** How often the connection is tried where nothing is probed, and how long the server has for its answer. */
const interval = Duration.seconds(5)
const answerLimit = Duration.seconds(5)

/** How long the end of a stream waits for the server. */
const endLimit = Duration.seconds(1)

/** For a role that may not ask for positions. */
const roleText = "SELECT pg_is_in_recovery()"

interface Notification {
  readonly payload: string
  /** Where the server was when it had come. `undefined` where positions do not matter. */
  readonly mark: Mark | undefined
}

interface Listener {
  readonly notified: (notification: Notification) => void
  readonly failed: (error: SqlError) => void
}

/** A channel with its listeners in this process. */
interface Channel {
  readonly listeners: Set<Listener>
  /** Callbacks that wait for the server's answer to LISTEN; `undefined` once it has answered. */
  waiting: Array<(error: SqlError | undefined) => void> | undefined
}

type Answered = Parameters<Connection["query"]>[1]

/** One connection that listens. */
class Listening {
  /** How many streams have it. */
  uses = 0
  private failure: SqlError | undefined
  private readonly channels = new Map<string, Channel>()
  private readonly binding: number
  /** Whether a question for the position is on its way, and what is to be asked for after that. */
  private isAsking = false
  private next: { readonly mark: Mark; readonly question: number } | undefined
  private answered: Array<() => void> = []
  /** What the server is asked, one after the other: the driver takes no statement while another one runs. */
  private readonly questions: Array<readonly [query: Query, answered: Answered]> = []
  private hasEnded = false
  private whenEnded = () => {}
  private watching: Fiber.RuntimeFiber<unknown, unknown> | undefined

  private constructor(
    private readonly router: Router,
    private readonly engine: Engine,
    private readonly gone: (listening: Listening) => void
  ) {
    this.binding = engine.binding
  }

  private connection!: Connection

  /** Connects. The caller must be uninterruptible; `restore` makes the waiting interruptible. */
  static open(
    router: Router,
    engine: Engine,
    events: PubSub.PubSub<Health.Event>,
    gone: (listening: Listening) => void,
    restore: Restore
  ): Effect.Effect<Listening, SqlError> {
    return Effect.suspend(() => {
      const listening = new Listening(router, engine, gone)
      const { applicationName } = engine.client
      const config = { ...poolConfig(engine.client), application_name: `${applicationName} listen` }
      let isAbandoned = false
      const refuse = (cause: unknown) => {
        const error = new SqlError({ cause, message: acquireFailed })
        // Of what is given up here the server is not to blame.
        if (engine.binding === listening.binding && !isAbandoned) engine.heard(error)
        return Effect.fail(error)
      }
      let connection: Connection
      try {
        connection = new Connection(config, () => listening.ended())
      } catch (cause) {
        return refuse(cause)
      }
      listening.connection = connection
      connection.onNotification((channel, payload) => listening.notified(channel, payload))
      const connected = Effect.async<void, SqlError>((resume) => {
        connection.connect((cause) => resume(cause === undefined ? Effect.void : refuse(cause)))
      })
      return restore(connected).pipe(
        Effect.onError(() =>
          Effect.sync(() => {
            isAbandoned = true
            connection.destroy()
          })
        ),
        Effect.zipRight(Effect.forkDaemon(Effect.interruptible(listening.watch(events)))),
        Effect.map((watching) => {
          listening.watching = watching
          return listening
        })
      )
    })
  }

  get isOpen(): boolean {
    return this.failure === undefined
  }

  /** Whether it was given up, as its server is not the one to listen to any more. */
  hasMoved = false

  /** Adds a listener, once the server listens. Whatever becomes of that, it has to be removed. */
  add(name: string, listener: Listener): Effect.Effect<void, SqlError> {
    return Effect.async<void, SqlError>((resume) => {
      if (this.failure !== undefined) return resume(Effect.fail(this.failure))
      let channel = this.channels.get(name)
      if (channel === undefined) {
        channel = { listeners: new Set(), waiting: [] }
        this.channels.set(name, channel)
        const added = channel
        this.query({ text: `LISTEN ${Pg.escapeIdentifier(name)}` }, (error) => this.listens(name, added, error))
      }
      channel.listeners.add(listener)
      if (channel.waiting === undefined) resume(Effect.void)
      else channel.waiting.push((error) => resume(error === undefined ? Effect.void : Effect.fail(error)))
    })
  }

  /** Removes a listener. The last one of a channel ends that, unless the connection ends with it. */
  remove(name: string, listener: Listener): Effect.Effect<void> {
    return Effect.suspend(() => {
      const channel = this.channels.get(name)
      if (channel?.listeners.delete(listener) !== true || channel.listeners.size > 0) return Effect.void
      this.channels.delete(name)
      if (this.failure !== undefined || this.uses === 1) return Effect.void
      const ended = Effect.async<void>((resume) =>
        this.query({ text: `UNLISTEN ${Pg.escapeIdentifier(name)}` }, () => resume(Effect.void))
      )
      return Effect.asVoid(bounded.run(ended, endLimit))
    })
  }

  /** Takes leave of the server. Nothing listens there any more. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.leave()
    this.connection.end()
    if (this.hasEnded) return Effect.void
    const ended = Effect.async<void>((resume) => {
      this.whenEnded = () => resume(Effect.void)
      if (this.hasEnded) this.whenEnded()
    })
    return Effect.asVoid(bounded.run(ended, endLimit))
  })

  /** Fails every stream, and closes the connection at once. */
  fail(error: SqlError): void {
    if (this.failure !== undefined) return
    this.failure = error
    this.leave()
    const channels = [...this.channels.values()]
    this.channels.clear()
    this.connection.destroy()
    for (const { listeners, waiting } of channels) {
      for (const tell of waiting ?? []) tell(error)
      for (const listener of listeners) listener.failed(error)
    }
  }

  private query(query: Query, answered: Answered): void {
    if (this.questions.push([query, answered]) === 1) this.send()
  }

  private send(): void {
    const [first] = this.questions
    if (first === undefined) return
    const [query, answered] = first
    this.connection.query(query, (error, result) => {
      answered(error, result)
      this.questions.shift()
      this.send()
    })
  }

  private leave(): void {
    this.gone(this)
    this.watching?.unsafeInterruptAsFork(FiberId.none)
  }

  private ended(): void {
    this.hasEnded = true
    const { cause } = this.connection.unsentError
    this.fail(new SqlError({ cause, message: "The connection that listens broke: notifications may have been missed" }))
    this.whenEnded()
  }

  private listens(name: string, channel: Channel, error: Error | undefined): void {
    const { waiting = [] } = channel
    channel.waiting = undefined
    if (error === undefined) {
      for (const tell of waiting) tell(undefined)
      return
    }
    if (this.channels.get(name) === channel) this.channels.delete(name)
    const failed = new SqlError({ cause: this.connection.statementError(error).cause, message: "Failed to listen" })
    for (const tell of waiting) tell(failed)
  }

  private notified(name: string, payload: string): void {
    const channel = this.channels.get(name)
    // Before the server has answered LISTEN, what comes is from before an UNLISTEN: there is a gap behind it.
    if (channel === undefined || channel.waiting !== undefined) return
    const { listeners } = channel
    const notification = { payload, mark: this.router.causal && this.ask() }
    for (const listener of listeners) listener.notified(notification)
  }

  /** Asks for the position, from now on or later. What has come in one packet is asked for once. */
  private ask(): Mark {
    if (this.next === undefined) {
      const mark = new Mark(this.engine.positions).end()
      this.next = { mark, question: mark.send() }
      if (!this.isAsking) {
        this.isAsking = true
        queueMicrotask(() => this.askNow())
      }
    }
    return this.next.mark
  }

  private askNow(): void {
    const { mark, question } = this.next!
    this.next = undefined
    const isTold = this.engine.positions.refused === undefined
    this.query({ text: isTold ? positionText : roleText, asArrays: true }, (error, result) => {
      const row = error ?? rowOf(result!)
      const answer = row instanceof Error ? row : isTold ? answerOf(row) : new Error("It does not tell its position")
      mark.heard(question, answer)
      const isStandby = isTold ? !(answer instanceof Error) && answer.isStandby : saysYes(row)
      for (const tell of this.answered.splice(0)) tell()
      if (isStandby) this.move(`${this.engine.name} is a standby`)
      if (this.next !== undefined) this.askNow()
      else this.isAsking = false
    })
  }

  /** Looks whether the server is still the one to listen to, at every news of the servers, and every so often by asking. */
  private watch(events: PubSub.PubSub<Health.Event>): Effect.Effect<never> {
    const look = Effect.sync(() => this.look())
    const news = Effect.scoped(
      Effect.flatMap(PubSub.subscribe(events), (queue) =>
        Effect.zipRight(look, Effect.forever(Effect.zipRight(Queue.take(queue), look)))
      )
    )
    const every = this.router.config.health?.interval ?? interval
    const beat = Effect.forever(Effect.zipRight(Effect.sleep(every), Effect.zipRight(look, this.check)))
    return Effect.zipRight(Effect.all([news, beat], { concurrency: 2, discard: true }), Effect.never)
  }

  /** Looks whether its server is still the one to listen to. */
  look(): void {
    const { binding, engine, router } = this
    const { name } = engine
    if (engine.binding !== binding) this.move(`${name} is bound to another server`)
    else if (engine.isDrained) this.move(`${name} is drained`)
    else if (!router.defaultGroup.isEligible(engine)) this.move(`${name} is not the primary any more`)
  }

  private move(why: string): void {
    const { name } = this.engine
    this.hasMoved ||= this.isOpen
    this.fail(
      RouterError.toSqlError(RouterError.listenEnded(why, { group: this.router.defaultGroup.name, engine: name }))
    )
  }

  /** Makes the server answer: the network may drop a connection without a word to either end. */
  private readonly check: Effect.Effect<void> = Effect.suspend(() => {
    if (this.failure !== undefined) return Effect.void
    this.ask()
    return Effect.timeoutTo(
      Effect.async<void>((resume) => {
        this.answered.push(() => resume(Effect.void))
      }),
      {
        duration: answerLimit,
        onSuccess: () => {},
        onTimeout: () => this.move(`${this.engine.name} does not answer`)
      }
    )
  })
}

const rowOf = (result: Result): ReadonlyArray<unknown> =>
  (result as Exclude<Result, ReadonlyArray<unknown>>).rows[0] as unknown as ReadonlyArray<unknown>

const saysYes = (row: Error | ReadonlyArray<unknown>): boolean =>
  !(row instanceof Error) && (row[0] === true || row[0] === "t")

/** A connection that is being opened, for all the streams that wait for it. */
class Opening {
  waiting = 0
  /** Once it is open, every stream that waits for it has a use of it. */
  opened: Listening | undefined
  fiber: Fiber.RuntimeFiber<unknown> | undefined
  readonly done = Deferred.unsafeMake<Listening, SqlError>(FiberId.none)
}

/** A listener that has not begun: a failure is told when it has. */
class Beginning implements Listener {
  private failure: SqlError | undefined
  private hasBegun = false

  constructor(private readonly listener: Listener) {}

  notified(notification: Notification): void {
    this.listener.notified(notification)
  }

  failed(error: SqlError): void {
    if (this.hasBegun) this.listener.failed(error)
    else this.failure = error
  }

  end(): void {
    this.hasBegun = true
    if (this.failure !== undefined) this.listener.failed(this.failure)
  }
}

/** The connection that listens now. There is one while there is a stream. */
class Hub {
  private current: Listening | undefined
  private opening: Opening | undefined
  private isClosed = false

  constructor(
    private readonly router: Router,
    private readonly events: PubSub.PubSub<Health.Event>
  ) {}

  /**
   * Listens until the scope closes. All servers are looked at as it begins: behind a promotion that nothing has told of yet it
   * would begin on the old primary. Then it begins anew, since it has missed nothing.
   */
  listen(channel: string, listener: Listener): Effect.Effect<void, SqlError, Scope.Scope> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(
        this.router.patience.around(() => this.take(restore), restore),
        (listening) => {
          const beginning = new Beginning(listener)
          return Effect.addFinalizer(() => this.leave(listening)).pipe(
            Effect.zipRight(Effect.addFinalizer(() => listening.remove(channel, beginning))),
            Effect.zipRight(
              Effect.either(restore(Effect.zipRight(listening.add(channel, beginning), this.look(listening))))
            ),
            Effect.flatMap((added) =>
              listening.hasMoved
                ? restore(this.listen(channel, listener))
                : Effect.zipRight(
                    added,
                    Effect.sync(() => beginning.end())
                  )
            )
          )
        }
      )
    )
  }

  /** Looks at all servers: a connection is given up whose server turns out not to be the primary. */
  private look(listening: Listening): Effect.Effect<void> {
    const { config, look } = this.router
    if (config.health === undefined) return Effect.void
    return Effect.map(look, () => listening.look())
  }

  /** Fails every stream, the ones to come too. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.isClosed = true
    const { current, opening } = this
    current?.fail(RouterError.toSqlError(RouterError.routerClosed()))
    return Effect.zipRight(opening === undefined ? Effect.void : stop(opening), current?.close ?? Effect.void)
  })

  /** One use of the connection. Who waits for it waits for the one attempt that there is: each has its own limit. */
  private take(restore: Restore): Effect.Effect<Listening, SqlError> {
    return Effect.suspend(() => {
      const { current } = this
      if (current !== undefined) {
        current.uses++
        return Effect.succeed(current)
      }
      const begun = this.opening
      const opening = begun ?? new Opening()
      this.opening = opening
      opening.waiting++
      return Effect.zipRight(
        begun === undefined ? this.begin(opening) : Effect.void,
        Effect.onInterrupt(restore(Deferred.await(opening.done)), () => this.giveUp(opening))
      )
    })
  }

  /** In a fiber of its own: it goes on for the others when the stream that has begun it ends. */
  private begin(opening: Opening): Effect.Effect<void> {
    const open = Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(Effect.exit(this.open(opening, restore)), (exit) => {
        this.forget(opening)
        // While it is waited for, nothing but the close interrupts it.
        return Deferred.done(opening.done, Exit.isInterrupted(exit) ? closed : exit)
      })
    )
    return Effect.map(Effect.forkDaemon(Effect.interruptible(open)), (fiber) => {
      opening.fiber = fiber
    })
  }

  private open(opening: Opening, restore: Restore): Effect.Effect<Listening, SqlError> {
    const { defaultGroup } = this.router
    if (this.isClosed) return closed
    const engine = defaultGroup.choose()
    if (engine === undefined) {
      const why = defaultGroup.whyNone()
      return Effect.fail(RouterError.toSqlError(RouterError.noEngineAvailable(defaultGroup.name, { why })))
    }
    const gone = (listening: Listening) => {
      if (this.current === listening) this.current = undefined
    }
    return Effect.flatMap(Listening.open(this.router, engine, this.events, gone, restore), (listening) => {
      // All may have left by now.
      if (opening.waiting === 0) return Effect.as(listening.close, listening)
      listening.uses = opening.waiting
      opening.opened = listening
      this.forget(opening)
      if (!this.isClosed && listening.isOpen) this.current = listening
      else listening.fail(RouterError.toSqlError(RouterError.routerClosed()))
      return Effect.succeed(listening)
    })
  }

  /** A stream ends that waits for the connection. */
  private giveUp(opening: Opening): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (opening.opened !== undefined) return this.leave(opening.opened)
      if (--opening.waiting > 0) return Effect.void
      this.forget(opening)
      return stop(opening)
    })
  }

  private forget(opening: Opening): void {
    if (this.opening === opening) this.opening = undefined
  }

  private leave(listening: Listening): Effect.Effect<void> {
    return Effect.suspend(() => (--listening.uses > 0 ? Effect.void : listening.close))
  }
}

const closed = Exit.fail(RouterError.toSqlError(RouterError.routerClosed()))

const stop = ({ fiber }: Opening): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (fiber === undefined) return Effect.void
    fiber.unsafeInterruptAsFork(FiberId.none)
    return Effect.asVoid(bounded.fiber(fiber, endLimit))
  })

/**
 * `listen`: a stream of the payloads sent to a channel. Who handles one reads at least what it was sent for: its flow has seen where
 * the primary was when it came.
 */
export const make = (
  router: Router,
  events: PubSub.PubSub<Health.Event>
): Effect.Effect<(channel: string) => Stream.Stream<string, SqlError>, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => new Hub(router, events)),
      (hub) => hub.close
    ),
    (hub) => {
      const { afterWriteEnded = Effect.void } = router.config.consistency
      const shown = ({ mark, payload }: Notification) =>
        Effect.zipRight(
          afterWriteEnded,
          Effect.withFiberRuntime<string>((fiber) => {
            if (mark !== undefined) router.causal?.note(fiber, (seen) => Seen.withMark(seen, mark))
            return Effect.succeed(payload)
          })
        )
      const most = router.config.maxPendingNotifications
      return (channel: string) =>
        Stream.suspend(() => {
          // What the consumer has not taken. When it is too much there is no more, and the stream fails once what came before is taken.
          let pending = 0
          let isBehind = false
          const listens = Stream.asyncPush<Notification, SqlError>(
            (emit) =>
              hub.listen(channel, {
                notified: (notification) => {
                  if (isBehind) return
                  isBehind = ++pending > most
                  if (isBehind) emit.fail(RouterError.toSqlError(RouterError.listenerBehind(channel, most)))
                  else emit.single(notification)
                },
                failed: (error) => emit.fail(error)
              }),
            { bufferSize: "unbounded" }
          )
          return Stream.mapEffect(listens, (notification) => {
            pending--
            return shown(notification)
          })
        })
    }
  )
