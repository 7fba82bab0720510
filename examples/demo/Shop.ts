/**
 * The business code, and the point of the demo: there is nothing about routing in this file. It is plain `@effect/sql`,
 * the same code that runs on one server with an ordinary `PgClient`, unmodified. Which server a statement goes to, and
 * that a new order is found again although the standbys may not have it yet, is decided below `SqlClient`.
 */
import { SqlClient, SqlSchema } from "@effect/sql"
import { Array, Effect, Option, Order as Ordering, Schema } from "effect"
import {
  CustomerNotFound,
  type NewOrder,
  Order,
  OrderNotFound,
  OrderSearch,
  OrderSummary,
  OutOfStock,
  TopCustomer
} from "./Api.js"

export class Shop extends Effect.Service<Shop>()("demo/Shop", {
  effect: Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient

    const search = SqlSchema.findAll({
      Request: OrderSearch,
      Result: Schema.typeSchema(OrderSummary),
      execute: ({ customer, status }) => sql`
        SELECT o.id, c.name AS customer, o.status, o.placed_at AS "placedAt",
          (SELECT sum(i.quantity * i.price_cents)::int FROM demo_shop.order_items i WHERE i.order_id = o.id) AS "totalCents"
        FROM demo_shop.orders o JOIN demo_shop.customers c ON c.id = o.customer_id
        WHERE ${sql.and([
          ...(customer === undefined ? [] : [sql`c.name ILIKE ${`%${customer}%`}`]),
          ...(status === undefined ? [] : [sql`o.status = ${status}`])
        ])}
        ORDER BY o.id DESC LIMIT 20`
    })

    const findOrder = SqlSchema.findOne({
      Request: Schema.Int,
      Result: Schema.typeSchema(Order),
      execute: (id) => sql`
        SELECT o.id, c.name AS customer, c.city, o.status, o.placed_at AS "placedAt",
          sum(i.quantity * i.price_cents)::int AS "totalCents",
          json_agg(json_build_object('productId', p.id, 'product', p.name, 'quantity', i.quantity,
            'priceCents', i.price_cents) ORDER BY p.id) AS items
        FROM demo_shop.orders o
          JOIN demo_shop.customers c ON c.id = o.customer_id
          JOIN demo_shop.order_items i ON i.order_id = o.id
          JOIN demo_shop.products p ON p.id = i.product_id
        WHERE o.id = ${id}
        GROUP BY o.id, c.id`
    })

    const order = (id: number) =>
      Effect.flatMap(
        findOrder(id),
        Option.match({ onNone: () => Effect.fail(new OrderNotFound({ id })), onSome: Effect.succeed })
      )

    const topCustomers = SqlSchema.findAll({
      Request: Schema.Void,
      Result: Schema.typeSchema(TopCustomer),
      execute: () => sql`
        SELECT c.id, c.name, count(DISTINCT o.id)::int AS orders, sum(i.quantity * i.price_cents)::int AS "spentCents"
        FROM demo_shop.customers c
          JOIN demo_shop.orders o ON o.customer_id = c.id
          JOIN demo_shop.order_items i ON i.order_id = o.id
        GROUP BY c.id ORDER BY "spentCents" DESC, c.id LIMIT 10`
    })

    const takeFromStock = ({ productId, quantity }: NewOrder["items"][number]) =>
      Effect.flatMap(
        sql<{ readonly price_cents: number }>`
          UPDATE demo_shop.products SET stock = stock - ${quantity}
          WHERE id = ${productId} AND stock >= ${quantity} RETURNING price_cents`,
        ([product]) => (product === undefined ? Effect.fail(new OutOfStock({ productId })) : Effect.succeed(product))
      )

    const store = ({ customerId, items }: NewOrder) =>
      sql.withTransaction(
        Effect.gen(function* () {
          const customers = yield* sql`SELECT id FROM demo_shop.customers WHERE id = ${customerId}`
          if (customers.length === 0) return yield* new CustomerNotFound({ id: customerId })
          const [order] = yield* sql<{ readonly id: number }>`
            INSERT INTO demo_shop.orders ${sql.insert({ customer_id: customerId, status: "new" }).returning("id")}`
          const lines = yield* Effect.forEach(
            // By product, so that two orders never wait for each other.
            Array.sortWith(items, (item) => item.productId, Ordering.number),
            (item) =>
              Effect.map(takeFromStock(item), ({ price_cents }) => ({
                order_id: order!.id,
                product_id: item.productId,
                quantity: item.quantity,
                price_cents
              }))
          )
          yield* sql`INSERT INTO demo_shop.order_items ${sql.insert(lines)}`
          return order!.id
        })
      )

    const place = (newOrder: NewOrder) =>
      Effect.gen(function* () {
        const id = yield* store(newOrder)
        yield* sql`INSERT INTO demo_shop.journal ${sql.insert({ entry: `Order ${id} was placed` })}`
        return yield* order(id)
      })

    return { search, order, topCustomers, place } as const
  })
}) {}
