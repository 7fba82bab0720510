import type { Checked, Measured } from "./Checker.js"
import type { Findings } from "./Client.js"

export const violations = ({ violations }: Findings, kind: "read your writes" | "monotonic reads") =>
  violations.filter((violation) => violation.kind === kind).length

const quantile = (sorted: ReadonlyArray<number>, share: number) =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN

/** The half took no longer, and 99 of 100, in milliseconds. */
const latenciesOf = (all: ReadonlyArray<number>) => {
  const sorted = all.slice().sort((a, b) => a - b)
  return { p50: quantile(sorted, 0.5), p99: quantile(sorted, 0.99) }
}

export const latencies = ({ latencies: { reads, writes } }: Findings) => ({
  reads: latenciesOf(reads),
  writes: latenciesOf(writes)
})

const count = (n: number) => n.toLocaleString("en-US")

const rows = (head: ReadonlyArray<string>, body: ReadonlyArray<ReadonlyArray<string>>) =>
  [head, head.map(() => "---"), ...body].map((cells) => `| ${cells.join(" | ")} |`).join("\n")

const isMet = (met: boolean) => (met ? "" : " **not met**")

/** What the checker must have found: nothing with `causal`, and something with `eventual`, or it cannot find anything. */
export const isSound = ({ findings, policy }: Checked): boolean =>
  findings.failedReads.length === 0 &&
  (policy === "causal"
    ? findings.violations.length === 0
    : policy === "eventual"
      ? violations(findings, "read your writes") > 0 && violations(findings, "monotonic reads") > 0
      : true)

export const checkedTable = (all: ReadonlyArray<Checked>): string =>
  rows(
    [
      "policy",
      "reads",
      "writes",
      "requests that went on with a token",
      "missed an own write",
      "went back in time",
      "reads that failed"
    ],
    all.map((checked) => {
      const { findings, policy } = checked
      return [
        `\`${policy}\``,
        count(findings.reads),
        count(findings.writes),
        count(findings.tokens),
        count(violations(findings, "read your writes")),
        count(violations(findings, "monotonic reads")),
        `${count(findings.failedReads.length)}${isMet(isSound(checked))}`
      ]
    })
  )

/** The least share of reads that replicas are to answer with `causal`. */
export const leastShare = 0.9

export const isCheap = ({ policy, share }: Measured): boolean => policy !== "causal" || share >= leastShare

/** What a policy adds to a latency of `eventual` in the same run. */
const added = (millis: number, base: number) =>
  `${millis < base ? "-" : "+"}${Math.abs(millis - base).toFixed(2)} ms (${(millis / base).toFixed(2)} x)`

export const measuredTable = (all: ReadonlyArray<Measured>): string => {
  const base = all.find(({ policy }) => policy === "eventual")
  const of = base && latencies(base.findings)
  return rows(
    [
      "policy",
      "reads that replicas answered",
      "extra round trips a read",
      "a write",
      "reads: p50, against `eventual`",
      "p99",
      "writes: p50",
      "p99"
    ],
    all.map((measured) => {
      const { findings, policy, questions, share } = measured
      const { reads, writes } = latencies(findings)
      return [
        `\`${policy}\``,
        `${(100 * share).toFixed(1)}%${isMet(isCheap(measured))}`,
        (questions.read / findings.reads).toFixed(4),
        (questions.write / findings.writes).toFixed(4),
        ...(of === undefined || policy === "eventual"
          ? [reads.p50, reads.p99, writes.p50, writes.p99].map((millis) => `${millis.toFixed(2)} ms`)
          : [
              added(reads.p50, of.reads.p50),
              added(reads.p99, of.reads.p99),
              added(writes.p50, of.writes.p50),
              added(writes.p99, of.writes.p99)
            ])
      ]
    })
  )
}

export const json = (checked: ReadonlyArray<Checked>, measured: ReadonlyArray<Measured>) => ({
  checked: checked.map(({ deeds, findings, policy, seconds }) => ({
    policy,
    reads: findings.reads,
    writes: findings.writes,
    tokens: findings.tokens,
    missedOwnWrites: violations(findings, "read your writes"),
    wentBackInTime: violations(findings, "monotonic reads"),
    failedReads: findings.failedReads.map(String),
    failedWrites: findings.failedWrites,
    seconds,
    deeds
  })),
  measured: measured.map(({ findings, policy, questions, share }) => ({
    policy,
    share,
    reads: findings.reads,
    writes: findings.writes,
    questions,
    latencies: latencies(findings)
  }))
})
