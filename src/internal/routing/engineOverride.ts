/** Where the statements of a test run instead of where they belong. */
import * as Effect from "effect/Effect"
import * as FiberRef from "effect/FiberRef"
import { globalValue } from "effect/GlobalValue"
import type { Engine } from "../../Engine.js"

/** The engine that everything goes to in a fiber; none outside tests. */
export const currentTest = globalValue("effect-db-router/testConnection/currentTest", () =>
  FiberRef.unsafeMake<Engine | undefined>(undefined)
)

/** A place in the nesting of sessions and transactions: who is inside whom, also where nothing is joined. */
export class Node {
  constructor(private readonly parent: Node | undefined) {}

  isInside(other: Node): boolean {
    return this === other || (this.parent?.isInside(other) ?? false)
  }
}

/** Where a fiber is. Nowhere, outside tests. */
export const currentNode = globalValue("effect-db-router/testConnection/currentNode", () =>
  FiberRef.unsafeMake<Node | undefined>(undefined)
)

/** Runs an effect one step further inside. */
export const inside: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R> = Effect.locallyWith(
  currentNode,
  (node) => (node === undefined ? undefined : new Node(node))
)
