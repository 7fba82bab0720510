/**
 * The HTTP interface of the shop. The service implements it (`HttpService.ts`), the traffic calls it (`Traffic.ts`).
 */
import { HttpApi, HttpApiEndpoint, HttpApiGroup, HttpApiSchema } from "@effect/platform"
import { Schema } from "effect"

export const Status = Schema.Literal("new", "paid", "shipped")

export const OrderSummary = Schema.Struct({
  id: Schema.Int,
  customer: Schema.String,
  status: Status,
  placedAt: Schema.Date,
  totalCents: Schema.Int
})

export const Order = Schema.Struct({
  ...OrderSummary.fields,
  city: Schema.String,
  items: Schema.Array(
    Schema.Struct({
      productId: Schema.Int,
      product: Schema.String,
      quantity: Schema.Int,
      priceCents: Schema.Int
    })
  )
})
export type Order = typeof Order.Type

export const TopCustomer = Schema.Struct({
  id: Schema.Int,
  name: Schema.String,
  orders: Schema.Int,
  spentCents: Schema.Int
})

export const OrderSearch = Schema.Struct({
  customer: Schema.optional(Schema.NonEmptyString),
  status: Schema.optional(Status)
})
export type OrderSearch = typeof OrderSearch.Type

export const NewOrder = Schema.Struct({
  customerId: Schema.Int,
  items: Schema.NonEmptyArray(Schema.Struct({ productId: Schema.Int, quantity: Schema.Int.pipe(Schema.positive()) }))
})
export type NewOrder = typeof NewOrder.Type

export class OrderNotFound extends Schema.TaggedError<OrderNotFound>()(
  "OrderNotFound",
  { id: Schema.Int },
  HttpApiSchema.annotations({ status: 404 })
) {}

export class CustomerNotFound extends Schema.TaggedError<CustomerNotFound>()(
  "CustomerNotFound",
  { id: Schema.Int },
  HttpApiSchema.annotations({ status: 404 })
) {}

export class OutOfStock extends Schema.TaggedError<OutOfStock>()(
  "OutOfStock",
  { productId: Schema.Int },
  HttpApiSchema.annotations({ status: 409 })
) {}

const id = HttpApiSchema.param("id", Schema.NumberFromString.pipe(Schema.int()))

export const Api = HttpApi.make("shop").add(
  HttpApiGroup.make("shop", { topLevel: true })
    .add(
      HttpApiEndpoint.get("searchOrders", "/orders").setUrlParams(OrderSearch).addSuccess(Schema.Array(OrderSummary))
    )
    .add(HttpApiEndpoint.get("order")`/orders/${id}`.addSuccess(Order).addError(OrderNotFound))
    .add(HttpApiEndpoint.get("topCustomers", "/customers/top").addSuccess(Schema.Array(TopCustomer)))
    .add(
      HttpApiEndpoint.post("placeOrder", "/orders")
        .setPayload(NewOrder)
        .addSuccess(Order, { status: 201 })
        .addError(CustomerNotFound)
        .addError(OutOfStock)
        .addError(OrderNotFound)
    )
)
