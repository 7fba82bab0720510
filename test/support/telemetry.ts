import { Effect, Metric, type MetricState } from "effect"
import { Telemetry } from "effect-db-router"

type Labels = Readonly<Record<string, string>>

/** One series of a metric. */
export interface Series {
  readonly name: string
  readonly labels: Labels
  readonly state: MetricState.MetricState.Untyped
}

/** All series of metrics of the router. */
export const allSeries: Effect.Effect<ReadonlyArray<Series>> = Effect.map(Metric.snapshot, (pairs) =>
  pairs
    .map(({ metricKey, metricState }) => ({
      name: metricKey.name,
      labels: Object.fromEntries(metricKey.tags.map(({ key, value }) => [key, value])),
      state: metricState
    }))
    .filter(({ name }) => name.startsWith("db."))
)

type Short = keyof typeof Telemetry.attributes

/** Labels by what `Telemetry.attributes` calls them. */
export const labelsOf = (labels: { readonly [name in Short]?: string }): Labels =>
  Object.fromEntries(Object.entries(labels).map(([name, value]) => [Telemetry.attributes[name as Short], value]))

/** What a series has counted, or is. */
export const valueOf = ({ state }: Series): number => {
  const { count, value } = state as unknown as { readonly count?: number; readonly value?: number }
  return Number(count ?? value)
}

/** The sum of those series of a metric that have these labels, among others. */
export const sumOf = (
  instrument: Pick<Telemetry.Instrument, "name">,
  labels: { readonly [name in Short]?: string } = {}
): Effect.Effect<number> =>
  Effect.map(allSeries, (all) => {
    const wanted = Object.entries(labelsOf(labels))
    return all
      .filter(({ labels, name }) => name === instrument.name && wanted.every(([key, value]) => labels[key] === value))
      .reduce((sum, series) => sum + valueOf(series), 0)
  })

const shortNames = new Map(Object.entries(Telemetry.attributes).map(([short, name]) => [name as string, short]))

/** The series of a metric that an effect has changed, by the values of their labels, and by how much. */
export const changesOf = <A, E, R>(
  instrument: Pick<Telemetry.Instrument, "name" | "attributes">,
  effect: Effect.Effect<A, E, R>,
  tags: ReadonlyArray<string> = instrument.attributes.map((name) => shortNames.get(name)!)
): Effect.Effect<readonly [A, Readonly<Record<string, number>>], E, R> =>
  Effect.gen(function* () {
    const read = Effect.map(allSeries, (all) => {
      const sums = new Map<string, number>()
      for (const series of all.filter(({ name }) => name === instrument.name)) {
        const key = tags.flatMap((tag) => series.labels[Telemetry.attributes[tag as Short]] ?? []).join(" ")
        sums.set(key, (sums.get(key) ?? 0) + valueOf(series))
      }
      return sums
    })
    const before = yield* read
    const value = yield* effect
    const after = yield* read
    const changes = Array.from(after, ([key, sum]) => [key, sum - (before.get(key) ?? 0)] as const)
    return [value, Object.fromEntries(changes.filter(([, change]) => change !== 0).sort())] as const
  })
