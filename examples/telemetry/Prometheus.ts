/** The metrics of OpenTelemetry in Prometheus' text format. */
import { DataPointType, MetricReader, type ResourceMetrics } from "@opentelemetry/sdk-metrics"

/** Collects at each scrape, as Prometheus wants it. */
export class PullReader extends MetricReader {
  protected override async onForceFlush(): Promise<void> {}
  protected override async onShutdown(): Promise<void> {}
}

type Metric = ResourceMetrics["scopeMetrics"][number]["metrics"][number]
type Labels = Readonly<Record<string, unknown>>

const units: Readonly<Record<string, string>> = { s: "_seconds", By: "_bytes" }

const nameOf = (text: string) => text.replaceAll(/[^a-zA-Z0-9_:]/g, "_")

const escaped = (text: string) => text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replaceAll('"', '\\"')

const line = (name: string, labels: Labels, value: number) => {
  const shown = Object.entries(labels)
    // The unit is in the name.
    .filter(([label]) => label !== "unit")
    .map(([label, value]) => `${nameOf(label)}="${escaped(String(value))}"`)
  return `${name}${shown.length === 0 ? "" : `{${shown.join(",")}}`} ${value === Number.POSITIVE_INFINITY ? "+Inf" : value}`
}

const linesOf = (name: string, metric: Metric): ReadonlyArray<string> => {
  if (metric.dataPointType !== DataPointType.HISTOGRAM) {
    return metric.dataPoints.map(({ attributes, value }) => line(name, attributes, Number(value)))
  }
  return metric.dataPoints.flatMap(({ attributes, value: { buckets, count, sum } }) => {
    let so = 0
    const below = [...buckets.boundaries, "+Inf"].map((le, i) => {
      so += buckets.counts[i] ?? 0
      return line(`${name}_bucket`, { ...attributes, le }, so)
    })
    return [...below, line(`${name}_sum`, attributes, sum ?? 0), line(`${name}_count`, attributes, count)]
  })
}

const typeOf = (metric: Metric): "counter" | "gauge" | "histogram" =>
  metric.dataPointType === DataPointType.HISTOGRAM
    ? "histogram"
    : metric.dataPointType === DataPointType.SUM && metric.isMonotonic
      ? "counter"
      : "gauge"

/** The metrics as text. `@opentelemetry/exporter-prometheus` does the same, with a server of its own. */
export const toText = ({ scopeMetrics }: ResourceMetrics): string =>
  scopeMetrics
    .flatMap(({ metrics }) => metrics)
    .flatMap((metric) => {
      const { description, name, unit } = metric.descriptor
      const type = typeOf(metric)
      const full = `${nameOf(name)}${units[unit] ?? ""}${type === "counter" ? "_total" : ""}`
      return [`# HELP ${full} ${description}`, `# TYPE ${full} ${type}`, ...linesOf(full, metric), ""]
    })
    .join("\n")
