/**
 * The users of the shop: fibers that send requests over HTTP.
 */
import { HttpApiClient } from "@effect/platform"
import { Array, Clock, Duration, Effect, Random, Ref, Schema } from "effect"
import { Api, type NewOrder, Order, type OrderSearch } from "./Api.js"
import { url } from "./HttpService.js"
import { seeded } from "./Migrations.js"

const users = 8

/** The number of orders kept to be asked for again; the demo may run for days. */
const maxKept = 5000

/** Requests that were answered as expected, and those that were not. */
export interface Tally {
  /** The duration of the traffic so far. */
  readonly millis: number
  readonly searches: number
  readonly orders: number
  readonly topLists: number
  readonly placed: number
  /** Orders whose own request found them, as they were placed. */
  readonly foundAtOnce: number
  readonly failed: number
  /** The last failure. */
  readonly failure: string | undefined
}

const none: Tally = {
  millis: 0,
  searches: 0,
  orders: 0,
  topLists: 0,
  placed: 0,
  foundAtOnce: 0,
  failed: 0,
  failure: undefined
}

export const total = ({ failed, orders, placed, searches, topLists }: Tally) =>
  searches + orders + topLists + placed + failed

const isSame = Schema.equivalence(Order)

const anyOf = <A>(options: Array.NonEmptyReadonlyArray<A>) =>
  Effect.map(Random.nextIntBetween(0, options.length), (i) => options[i]!)

const anyId = (count: number) => Random.nextIntBetween(1, count + 1)

const newOrder: Effect.Effect<NewOrder> = Effect.gen(function* () {
  const count = yield* Random.nextIntBetween(1, 4)
  const productIds = yield* Effect.replicateEffect(anyId(seeded.products), count)
  const [first, ...rest] = yield* Effect.forEach(Array.dedupe(productIds), (productId) =>
    Effect.map(Random.nextIntBetween(1, 4), (quantity) => ({ productId, quantity }))
  )
  return { customerId: yield* anyId(seeded.customers), items: [first!, ...rest] }
})

const has = (order: Order, { items }: NewOrder) =>
  order.items.length === items.length &&
  items.every(({ productId, quantity }) =>
    order.items.some((item) => item.productId === productId && item.quantity === quantity)
  )

const search: Effect.Effect<OrderSearch> = Effect.gen(function* () {
  const customer = yield* anyOf(["Ada", "Grace Hansen", "Berg", "Leslie Ito"])
  const status = yield* anyOf(["new", "paid", "shipped"] as const)
  return yield* anyOf<OrderSearch>([{ customer }, { status }, { customer, status }])
})

export class Traffic extends Effect.Service<Traffic>()("demo/Traffic", {
  effect: Effect.gen(function* () {
    const client = yield* HttpApiClient.make(Api, { baseUrl: yield* url })
    const tally = yield* Ref.make(none)
    const kept: Array<Order> = []
    let began = Number.POSITIVE_INFINITY
    let ended = Number.POSITIVE_INFINITY

    const count = (name: "searches" | "orders" | "topLists" | "placed" | "foundAtOnce") =>
      Ref.update(tally, (counts) => ({ ...counts, [name]: counts[name] + 1 }))

    const place = Effect.gen(function* () {
      const wanted = yield* newOrder
      const order = yield* client.placeOrder({ payload: wanted })
      if (kept.length < maxKept) kept.push(order)
      yield* count("placed")
      if (has(order, wanted)) yield* count("foundAtOnce")
    })

    const request = Effect.gen(function* () {
      const dice = yield* Random.nextIntBetween(0, 100)
      if (dice < 40) return yield* Effect.zipRight(client.searchOrders({ urlParams: yield* search }), count("searches"))
      if (dice < 75) {
        return yield* Effect.zipRight(client.order({ path: { id: yield* anyId(seeded.orders) } }), count("orders"))
      }
      if (dice < 85) return yield* Effect.zipRight(client.topCustomers(), count("topLists"))
      return yield* place
    })

    const guarded = <E>(request: Effect.Effect<void, E>) =>
      request.pipe(
        Effect.timeout("15 seconds"),
        Effect.catchAll((error) =>
          Ref.update(tally, (counts) => ({ ...counts, failed: counts.failed + 1, failure: String(error) }))
        )
      )

    const pause = Effect.flatMap(Random.nextIntBetween(5, 40), (millis) => Effect.sleep(millis))

    const user = (until: number) =>
      Effect.zipRight(
        guarded(place),
        Effect.repeat(Effect.zipRight(pause, guarded(request)), {
          until: () => Effect.map(Clock.currentTimeMillis, (now) => now >= until)
        })
      )

    return {
      tally: Effect.zipWith(Ref.get(tally), Clock.currentTimeMillis, (counts, now) => ({
        ...counts,
        millis: Math.min(now, ended) - Math.min(began, now)
      })),
      /** Lets all users send requests for so long. */
      run: (duration: Duration.DurationInput) =>
        Effect.gen(function* () {
          began = yield* Clock.currentTimeMillis
          const until = began + Duration.toMillis(duration)
          yield* Effect.forEach(Array.range(1, users), () => user(until), { concurrency: users, discard: true })
          ended = yield* Clock.currentTimeMillis
        }),
      /** Asks for the orders that were placed, by requests of their own. */
      askAgain: Effect.map(
        Effect.filter(
          kept,
          (order) =>
            client.order({ path: { id: order.id } }).pipe(
              Effect.map((found) => isSame(found, order)),
              Effect.orElseSucceed(() => false)
            ),
          { concurrency: users }
        ),
        (found) => ({ asked: kept.map(({ id }) => id), found: found.length })
      )
    }
  })
}) {}
