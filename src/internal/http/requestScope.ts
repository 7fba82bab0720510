import type * as HttpApp from "@effect/platform/HttpApp"
import { clientAbortFiberId } from "@effect/platform/HttpServerError"
import type { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberRef from "effect/FiberRef"
import type * as FiberRefs from "effect/FiberRefs"
import { identity } from "effect/Function"
import * as HashSet from "effect/HashSet"
import * as Scope from "effect/Scope"
import type { Position } from "../../Position.js"
import * as RoutingContext from "../../RoutingContext.js"
import * as place from "../client/currentContext.js"
import * as unit from "../client/openSession.js"
import * as Seen from "../context/causalState.js"
import type { Outside } from "../transaction/hooks.js"
import { restored } from "../util/refs.js"
import * as Log from "../validation/log.js"
import { withBody } from "./body.js"
import * as HangUp from "./hangUp.js"
import * as PreResponse from "./preResponse.js"
import * as StalledBody from "./stalledBody.js"
import type { Carried } from "./tokenTransport.js"

type Response = HttpServerResponse.HttpServerResponse

/** The routing context of one request: nothing of other requests, nor of the program around the server. */
export class RequestFlow {
  private readonly flow: RoutingContext.Flow

  private constructor(
    readonly request: HttpServerRequest,
    private readonly carried: Carried | undefined,
    brought: ReadonlyArray<Position>
  ) {
    this.flow = new RoutingContext.Flow({ shared: true, seen: brought.reduce(Seen.withPosition, Seen.nothing) })
  }

  /** It begins with what the request brings. */
  static begin(request: HttpServerRequest, carried: Carried | undefined): Effect.Effect<RequestFlow> {
    return carried === undefined
      ? Effect.sync(() => new RequestFlow(request, undefined, []))
      : Effect.map(carried.read, (brought) => new RequestFlow(request, carried, brought))
  }

  /** Runs an effect with it. */
  readonly run = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    RoutingContext.fresh(effect, { flow: this.flow })

  /** A response that takes along what the next request has to know, and whose body has it too. */
  take(response: Response, after: Outside = this.run): Effect.Effect<Response> {
    const answer = withBody(response, this.request, after)
    return this.carried === undefined ? Effect.succeed(answer) : this.run(this.carried.write(answer))
  }
}

/** What a request holds until its scope closes. */
export class RequestScope {
  private session: RequestSession | undefined

  private constructor(
    private readonly refs: FiberRefs.FiberRefs,
    /** Ends the interruption of the request by its client's leaving. */
    readonly leave: () => void
  ) {}

  /** Interrupts the fiber when the client of its request hangs up, from now on. */
  static begin(
    request: HttpServerRequest,
    fiber: Fiber.RuntimeFiber<unknown, unknown>
  ): Effect.Effect<RequestScope, never, Scope.Scope> {
    return Effect.flatMap(Effect.scope, (scope) => {
      const held = new RequestScope(fiber.getFiberRefs(), HangUp.unsafeFollow(request, fiber))
      const close = (exit: Exit.Exit<unknown, unknown>) => {
        held.leave()
        return held.close(exit)
      }
      return Effect.as(Scope.addFinalizerExit(scope, close), held)
    })
  }

  /** Abandons a session at the end of the request, if it is still open. */
  hold(session: RequestSession): RequestSession {
    this.session = session
    return session
  }

  // `Effect.addFinalizer` would change all FiberRefs for every request, and back, where nothing is left to do.
  private close(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    const { refs, session } = this
    return session === undefined || !session.isOpen ? Effect.void : restored(refs, session.close(exit))
  }
}

/** The session of one request. It ends once, with the first of these: the answer, an upgrade, or the client's hanging up. */
export class RequestSession {
  /** It has not ended. */
  isOpen = true

  constructor(
    private readonly opened: unit.Unit,
    private readonly flow: RequestFlow,
    private readonly commits: (status: number) => boolean,
    private readonly beforeCommit: Effect.Effect<unknown, unknown> | undefined,
    /** Whether a client that leaves stops what comes before the COMMIT. */
    private readonly isInterruptible: boolean
  ) {}

  /** Runs an app in it, and ends it before the pre-response handlers that the app appends. */
  serve<E, R>(app: HttpApp.Default<E, R>): HttpApp.Default<E, R> {
    return PreResponse.around(this.run(app), this.after, (response) => this.answer(response))
  }

  /** Runs an effect in it. An interruption ends it. */
  private run<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return effect.pipe(
      this.opened.runner.provideWork(this.opened.work, 0),
      this.flow.run,
      Effect.onExit((exit) => (Exit.isFailure(exit) && isAbandoned(exit.cause) ? this.abandon : Effect.void))
    )
  }

  /** An app whose request is ended when its body stalls while the session holds a connection. */
  limited<E, R>(app: HttpApp.Default<E, R>, timeout: Duration.Duration): HttpApp.Default<E, R | Scope.Scope> {
    const isHolding = () => this.opened.session.isHolding
    return StalledBody.limited(app, this.flow.request, { timeout, isHolding, abandon: this.abandon })
  }

  /** Ends it by the status of a response, and returns what may be sent. */
  private answer(response: Response): Effect.Effect<Response> {
    return this.once(
      Effect.zipRight(this.end(response.status), this.flow.take(response, this.after)).pipe(
        // Returned, not failed: an encoder of errors could turn a failure into anything.
        Effect.catchAllCause((cause) =>
          Effect.as(Log.error("The request was not committed", cause), notCommitted(response))
        )
      ),
      response
    )
  }

  /** Ends the session of a request that gets no answer. */
  get abandon(): Effect.Effect<void> {
    return this.once(
      Effect.suspend(() => this.outside(this.rollback)),
      undefined
    )
  }

  /** Abandons it at the end of the request, if it is still open. */
  close(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    return Effect.suspend(() =>
      Exit.isSuccess(exit) && this.isOpen && this.opened.session.isActive
        ? Effect.zipRight(Log.error(unheard), this.abandon)
        : this.abandon
    )
  }

  /** A request that ends the session when it becomes a socket, which may stay open for ever. `leave` is called before that. */
  endedByUpgrade(request: HttpServerRequest, leave: () => void): HttpServerRequest {
    return new Proxy(request, {
      get: (target, key) =>
        key === "upgrade"
          ? Effect.zipRight(Effect.sync(leave), Effect.zipLeft(target.upgrade, this.upgrade))
          : key === "modify"
            ? (options: Parameters<HttpServerRequest["modify"]>[0]) =>
                this.endedByUpgrade(target.modify(options), leave)
            : Reflect.get(target, key, target)
    })
  }

  private get upgrade(): Effect.Effect<void> {
    const ended = Effect.catchAllCause(this.end(101), (cause) =>
      Effect.zipRight(
        Log.error("The request was not committed", cause),
        Effect.die(HttpServerResponse.empty({ status: 500 }))
      )
    )
    return Effect.zipRight(this.once(ended, undefined), FiberRef.set(place.outlivesSession, true))
  }

  private once<A, E>(effect: Effect.Effect<A, E>, otherwise: A): Effect.Effect<A, E> {
    return Effect.uninterruptible(
      Effect.suspend(() => {
        if (!this.isOpen) return Effect.succeed(otherwise)
        this.isOpen = false
        return effect
      })
    )
  }

  /** Where that runs which comes after it: in the flow of the request, with what the session has set. It commits by itself. */
  private get after(): Outside {
    const { runner, session } = this.opened
    const { run } = this.flow
    if (session.rules === undefined) return run
    const around = runner.around(session.rules)
    return (effect) => around(run(effect))
  }

  private end(status: number): Effect.Effect<unknown, unknown> {
    return Effect.withFiberRuntime((fiber) => {
      const decided = this.decide(status)
      const commits = Exit.isSuccess(decided) && decided.value
      // Where nothing was begun and nothing waits for the end, nothing is to be done outside.
      const isDone = !(commits && this.beforeCommit) && this.opened.session.unsafeEndUnused(fiber)
      return isDone ? decided : this.outside(commits ? this.commit : Effect.zipRight(this.rollback, decided))
    })
  }

  /** Whether a status commits, which a stranger's function says: it may throw. */
  private decide(status: number): Exit.Exit<boolean> {
    try {
      return Exit.succeed(this.commits(status))
    } catch (defect) {
      return Exit.die(defect)
    }
  }

  private get commit(): Effect.Effect<unknown, unknown> {
    const { runner, session, work } = this.opened
    const { beforeCommit, isInterruptible } = this
    return Effect.zipRight(session.beforeCommit, beforeCommit ?? Effect.void).pipe(
      runner.provideWork(work, 0),
      isInterruptible ? Effect.interruptible : identity,
      Effect.exit,
      Effect.flatMap((prepared) => Effect.zipRight(unit.end(this.opened, prepared), prepared))
    )
  }

  private get rollback(): Effect.Effect<void> {
    return Effect.orDie(unit.end(this.opened, Exit.fail("not committed")))
  }

  // The end may be called from inside the session or from outside of it; what follows a COMMIT is outside.
  private outside<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return this.flow.run(place.detached(effect))
  }
}

const unheard =
  "A response was sent before its session could end, and what the request has written is rolled back. HttpSession.middleware must run in the fiber of the request, not in one that a middleware around it forks and does not join."

const isAbandoned = (cause: Cause.Cause<unknown>): boolean =>
  Cause.isInterruptedOnly(cause) || HashSet.has(Cause.interruptors(cause), clientAbortFiberId)

// Nothing that the handler has promised is true any more. The headers that let a browser read the status may stay.
const notCommitted = ({ body, headers }: Response): Response => {
  if (body._tag === "Raw" && isDestroyable(body.body)) body.body.destroy()
  return HttpServerResponse.empty({
    status: 500,
    headers: Object.entries(headers).filter(([name]) => name === "vary" || name.startsWith("access-control-"))
  })
}

// A file that is not read would stay open.
const isDestroyable = (body: unknown): body is { readonly destroy: () => void } =>
  typeof body === "object" && body !== null && "destroy" in body && typeof body.destroy === "function"
