/** How long the parts of a row last, and the router's own times that the figures are multiples of. In milliseconds. */
export interface Pace {
  /** How long the load runs before the fault, and after it. */
  readonly steady: number
  /** How long the fault lasts. */
  readonly fault: number
  /** How long a server stays away before it comes back. */
  readonly away: number
  /** By how much a slow replica's answers are late. */
  readonly late: number
  /** How long a read waits before it also goes to another replica. */
  readonly hedgeAfter: number
  /** What each fiber of the load waits between two operations. */
  readonly rest: number
  /** The option `health.interval`: a probe may come a fifth later. */
  readonly interval: number
  /** The option `health.timeout`. */
  readonly timeout: number
  /** The option `health.maxLag`. */
  readonly maxLag: number
  /** The server ends statements after so long. */
  readonly statementTimeout: number
  /** The option `connectTimeout` of the engines. */
  readonly connectTimeout: number
  /** How many requests there are whose clients hang up. */
  readonly requests: number
}

/** What the figures of the README are measured with. */
export const thorough: Pace = {
  steady: 6_000,
  fault: 20_000,
  away: 5_000,
  late: 200,
  hedgeAfter: 25,
  rest: 25,
  interval: 1_000,
  timeout: 1_000,
  maxLag: 5_000,
  statementTimeout: 3_000,
  connectTimeout: 3_000,
  requests: 3_000
}

/** Every row in a few seconds, for the tests. What limits the servers leaves them time on a machine that is busy. */
export const short: Pace = {
  steady: 600,
  fault: 2_400,
  away: 500,
  late: 700,
  hedgeAfter: 70,
  rest: 50,
  interval: 500,
  timeout: 1_500,
  maxLag: 1_500,
  statementTimeout: 5_000,
  connectTimeout: 5_000,
  requests: 600
}
