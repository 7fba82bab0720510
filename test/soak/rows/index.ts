import type { Row } from "../Row.js"
import * as Conflicts from "./Conflicts.js"
import * as Exhausted from "./Exhausted.js"
import * as Frozen from "./Frozen.js"
import * as Killed from "./Killed.js"
import * as Lag from "./Lag.js"
import * as Migration from "./Migration.js"
import * as Terminated from "./Terminated.js"

/** All rows, in the order of the table. */
export const rows: ReadonlyArray<Row> = [
  Killed.one,
  Frozen.row,
  Lag.row,
  Killed.both,
  Terminated.row,
  Conflicts.row,
  Migration.row,
  Exhausted.row
]
