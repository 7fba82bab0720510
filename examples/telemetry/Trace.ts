/** A trace as text. */
import type { ReadableSpan } from "@opentelemetry/sdk-trace-base"
import { Telemetry } from "effect-db-router"

const { engine, kind, rule } = Telemetry.attributes

const nanosOf = ([seconds, nanos]: readonly [number, number]) => BigInt(seconds) * 1_000_000_000n + BigInt(nanos)

const about = ({ attributes, duration, name }: ReadableSpan) => {
  const took = `${(Number(nanosOf(duration)) / 1e6).toFixed(1)} ms`
  return attributes[engine] === undefined
    ? `${name}, ${took}`
    : `${name} on ${attributes[engine]} (${attributes[kind]}, rule ${attributes[rule]}), ${took}: ${attributes["db.query.text"]}`
}

/** A span and those below it, a line each, in the order in which they began. */
export const treeOf = (spans: ReadonlyArray<ReadableSpan>, root: ReadableSpan, depth = 0): ReadonlyArray<string> => [
  `${"  ".repeat(depth)}${about(root)}`,
  ...spans
    .filter((span) => span.parentSpanContext?.spanId === root.spanContext().spanId)
    .sort((a, b) => Number(nanosOf(a.startTime) - nanosOf(b.startTime)))
    .flatMap((span) => treeOf(spans, span, depth + 1))
]
