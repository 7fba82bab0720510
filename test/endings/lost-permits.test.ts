import { HttpServerRequest, HttpServerResponse, KeyValueStore } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Context, Duration, Effect, Fiber, FiberId, Layer, Option, Scheduler, Utils } from "effect"
import { HttpSession, SqlClassifier } from "effect-db-router"
import { Refresh } from "../../src/internal/discovery/refresher.js"
import { Tokens } from "../../src/internal/tokens/tokens.js"
import { Lock } from "../../src/internal/util/lock.js"

const yields = (times: number) => Effect.repeatN(Effect.yieldNow(), times)

/** Something that is done one at a time, as its users see it. */
interface Place {
  readonly name: string
  readonly use: Effect.Effect<Effect.Effect<unknown, unknown>>
}

/**
 * Runs users that come at about the same time. Each ends its turn after some number of operations, and an interruption may
 * arrive there. Returns whether one that comes after them gets through.
 */
const isFreeAfter = (seed: number, use: Effect.Effect<unknown, unknown>) =>
  Effect.gen(function* () {
    const chance = new Utils.PCGRandom(seed)
    const upTo = (most: number) => chance.integer(most + 1)
    const fibers: Array<Fiber.RuntimeFiber<unknown, unknown>> = []
    for (let user = 0; user < 2 + upTo(3); user++) {
      const before = upTo(4)
      const slow = Effect.withMaxOpsBeforeYield(use, 32 + upTo(32))
      fibers.push(yield* Effect.fork(Effect.zipRight(yields(before), slow)))
    }
    const interrupters: Array<Fiber.RuntimeFiber<unknown>> = []
    for (const fiber of fibers) {
      for (let times = upTo(2); times > 0; times--) {
        interrupters.push(yield* Effect.fork(Effect.zipRight(yields(upTo(25)), Fiber.interruptFork(fiber))))
      }
    }
    yield* Effect.forEach(interrupters, Fiber.await)
    yield* Effect.forEach(fibers, Fiber.await)
    return (yield* Effect.timeoutOption(Effect.exit(use), "500 millis"))._tag === "Some"
  })

const position = { system: "1", timeline: 1, lsn: 5n }
const tokensOf = (ask: Effect.Effect<typeof position>) =>
  new Tokens(
    { keys: undefined, lifetime: Duration.minutes(1) },
    {
      known: () => undefined,
      system: () => undefined,
      ask,
      look: Effect.void,
      settled: () => Effect.succeed({ positions: [], isOpen: true })
    }
  )

const catalog = {
  version: 180_004,
  standardStrings: true,
  volatileBuiltins: [],
  functions: {},
  relations: {},
  types: {},
  operators: {},
  attributes: {}
}

/** A store that takes its time. */
const memory = Layer.map(KeyValueStore.layerMemory, (context) => {
  const kept = Context.get(context, KeyValueStore.KeyValueStore)
  const get: typeof kept.get = (key) => Effect.zipRight(yields(5), kept.get(key))
  return Context.make(KeyValueStore.KeyValueStore, { ...kept, get })
})

const store = Effect.map(Layer.build(memory).pipe(Effect.scoped), (context): Effect.Effect<unknown, unknown> => {
  const carrier = HttpSession.tokenStore({ subject: () => Effect.succeed(Option.some("ada")), timeout: "1 minute" })
  const request = HttpServerRequest.fromWeb(new Request("http://localhost/"))
  const tokens = tokensOf(Effect.succeed(position))
  const response = HttpServerResponse.empty()
  const written = carrier.write(position, response, request, tokens, Effect.succeed("token"))
  return Effect.provide(Effect.zipRight(yields(2), written), context)
})

const question = "the question for the primary's position"

const places: ReadonlyArray<Place> = [
  {
    name: "a lock",
    use: Effect.sync(() => {
      const lock = new Lock()
      return lock.run(yields(2))
    })
  },
  {
    name: "the reading of a topology",
    use: Effect.sync(() => new Refresh(yields(2), { interval: Duration.minutes(1), beforeSession: undefined }).now)
  },
  {
    name: "the reading of a topology before a session",
    use: Effect.sync(
      () => new Refresh(yields(2), { interval: Duration.minutes(1), beforeSession: Duration.zero }).beforeSession
    )
  },
  {
    name: "the reading of the catalog",
    use: Effect.scoped(
      Effect.map(
        SqlClassifier.fromCatalog({
          load: Effect.as(yields(2), catalog),
          refreshInterval: Duration.infinity
        }).pipe(Effect.orDie),
        ({ refresh }) => refresh
      )
    )
  },
  {
    name: question,
    use: Effect.sync(() => tokensOf(Effect.as(yields(2), position)).verify(position))
  },
  { name: "the store of positions", use: store }
]

/** Who is interrupted: one who waits, or what works for him in the background. */
type Whom = "the waiter" | "its fibers"

/** Interrupts at an operation of a fiber, or of those that it has forked: the one with that number, from 1. */
class InterruptAt implements Scheduler.Scheduler {
  private count = 0
  waiter: Fiber.RuntimeFiber<unknown, unknown> | undefined

  constructor(
    private readonly operation: number,
    private readonly whom: Whom
  ) {}

  /** Whether there were that many. */
  get hasCome(): boolean {
    return this.count >= this.operation
  }

  shouldYield(fiber: Fiber.RuntimeFiber<unknown, unknown>): false {
    if (++this.count !== this.operation) return false
    const interrupted = this.whom === "the waiter" ? this.waiter : fiber
    interrupted?.unsafeInterruptAsFork(FiberId.none)
    return false
  }

  scheduleTask(task: Scheduler.Task, priority: number, fiber?: Fiber.RuntimeFiber<unknown, unknown>): void {
    Scheduler.defaultScheduler.scheduleTask(task, priority, fiber)
  }
}

/**
 * One works, another one waits for it and is interrupted at that operation. Whether the next one gets through; nothing where
 * it had ended before.
 */
const isFreeAfterOperation = (operation: number, whom: Whom, use: Effect.Effect<unknown, unknown>) =>
  Effect.gen(function* () {
    const scheduler = new InterruptAt(operation, whom)
    const first = yield* Effect.fork(use)
    yield* Effect.yieldNow()
    const waiting = yield* Effect.fork(Effect.withScheduler(Effect.zipRight(Effect.yieldNow(), use), scheduler))
    scheduler.waiter = waiting
    yield* Fiber.await(first)
    yield* Fiber.await(waiting)
    if (!scheduler.hasCome) return undefined
    return (yield* Effect.timeoutOption(Effect.exit(use), "500 millis"))._tag === "Some"
  })

describe("what is done one at a time is free though one who waits for it is interrupted at any operation:", () => {
  for (const { name, use } of places) {
    for (const whom of ["the waiter", "its fibers"] as const) {
      // A daemon asks for the position, that nothing can interrupt: those who wait, wait for its answer.
      if (name === question && whom === "its fibers") continue
      it.live(`${name} (${whom})`, () =>
        Effect.gen(function* () {
          for (let operation = 1; ; operation++) {
            const isFree = yield* isFreeAfterOperation(operation, whom, yield* use)
            if (isFree === undefined) {
              assert.isAbove(operation, 10)
              return
            }
            assert.isTrue(isFree, `operation ${operation}`)
          }
        })
      )
    }
  }
})

describe("what is done one at a time goes on though those who wait for it are interrupted at any moment:", () => {
  for (const { name, use } of places) {
    it.live(name, () =>
      Effect.gen(function* () {
        let place = yield* use
        for (let seed = 1; seed <= 400; seed++) {
          if (seed % 50 === 0) place = yield* use
          assert.isTrue(yield* isFreeAfter(seed, place), `seed ${seed}`)
        }
      })
    )
  }
})
