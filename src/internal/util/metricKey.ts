import * as MetricBoundaries from "effect/MetricBoundaries"
import * as MetricKey from "effect/MetricKey"
import type * as MetricKeyType from "effect/MetricKeyType"

/** What a key is made from. */
interface Named {
  readonly name: string
  readonly unit: string
  readonly description: string
}

/** In seconds: OpenTelemetry's for durations of database operations. */
export const boundaries: ReadonlyArray<number> = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10]

/** Effect's metrics have no unit; its exporters read it from this label. Units of counts say nothing there. */
const withUnit = <Type extends MetricKeyType.MetricKeyType.Untyped>(
  key: MetricKey.MetricKey<Type>,
  { unit }: Named
): MetricKey.MetricKey<Type> => (unit === "s" || unit === "By" ? MetricKey.tagged(key, "unit", unit) : key)

/** The keys of metrics, without labels but for the unit. */
export const keyOf = {
  counter: (named: Named): MetricKey.MetricKey.Counter<number> =>
    MetricKey.counter(named.name, { description: named.description, incremental: true }),
  upDownCounter: (named: Named): MetricKey.MetricKey.Counter<number> =>
    MetricKey.counter(named.name, { description: named.description }),
  gauge: (named: Named): MetricKey.MetricKey.Gauge<number> =>
    withUnit(MetricKey.gauge(named.name, { description: named.description }), named)
}

export const histogramKey = (named: Named): MetricKey.MetricKey.Histogram =>
  withUnit(MetricKey.histogram(named.name, MetricBoundaries.fromIterable(boundaries), named.description), named)
