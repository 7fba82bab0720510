/**
 * Deep equality for all tests. Chai compares what can be iterated by what it yields, and an `Option` yields itself: none and some
 * count as the same. A `Redacted` has no field of its own.
 */
import { Option, Redacted } from "effect"
import { chai } from "vitest"

const { eql } = chai.util

const equal = (left: unknown, right: unknown): boolean => eql(left, right, { comparator })

/** `null`: as Chai compares them. */
const comparator = (left: unknown, right: unknown): boolean | null => {
  if (Option.isOption(left) || Option.isOption(right)) {
    return (
      Option.isOption(left) &&
      Option.isOption(right) &&
      left._tag === right._tag &&
      equal(Option.getOrUndefined(left), Option.getOrUndefined(right))
    )
  }
  if (Redacted.isRedacted(left) || Redacted.isRedacted(right)) {
    return Redacted.isRedacted(left) && Redacted.isRedacted(right) && equal(Redacted.value(left), Redacted.value(right))
  }
  return null
}

chai.config.deepEqual = equal
