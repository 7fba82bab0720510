import * as Metric from "effect/Metric"
import * as MetricKey from "effect/MetricKey"
import type * as MetricLabel from "effect/MetricLabel"
import { attributes, instruments } from "../../Telemetry.js"
import { keyOf } from "../util/metricKey.js"

const key = keyOf.counter(instruments.lookups)

const counterOf = (lookup: "hit" | "miss") => Metric.fromMetricKey(MetricKey.tagged(key, attributes.lookup, lookup))

const hits = counterOf("hit")
const misses = counterOf("miss")
const noTags: ReadonlyArray<MetricLabel.MetricLabel> = []

/** Counts a text that a classifier was asked for. */
export const countLookup = (isHit: boolean): void => (isHit ? hits : misses).unsafeUpdate(1, noTags)
