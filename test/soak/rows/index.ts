import type { ExternalRow, Row } from "../Row.js"
import * as Conflicts from "./Conflicts.js"
import * as DoubleFailover from "./DoubleFailover.js"
import * as Exhausted from "./Exhausted.js"
import * as Frozen from "./Frozen.js"
import * as HangUps from "./HangUps.js"
import * as Killed from "./Killed.js"
import * as Lag from "./Lag.js"
import * as Migration from "./Migration.js"
import * as Mistake from "./Mistake.js"
import * as Patroni from "./Patroni.js"
import * as Promotion from "./Promotion.js"
import * as Slow from "./Slow.js"
import * as Start from "./Start.js"
import * as Terminated from "./Terminated.js"
import * as Unwell from "./Unwell.js"

/** The rows on an embedded cluster, in the order of the table. */
export const rows: ReadonlyArray<Row> = [
  Killed.one,
  Frozen.row,
  Unwell.breaks,
  Unwell.silent,
  Slow.row,
  Lag.row,
  Killed.both,
  Mistake.row,
  Promotion.row,
  DoubleFailover.row,
  Terminated.row,
  Conflicts.row,
  Migration.row,
  Exhausted.row,
  HangUps.row,
  Start.row
]

/** The rows on other clusters. */
export const external: ReadonlyArray<ExternalRow> = [Patroni.row]

/** Whether a row leaves the cluster with another primary than before. */
export const movesPrimary = (row: Row): boolean => row === Promotion.row
