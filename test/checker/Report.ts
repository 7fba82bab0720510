import type { Checked, Measured } from "./Checker.js"
import type { Findings } from "./Client.js"

export const violations = ({ violations }: Findings, kind: "read your writes" | "monotonic reads") =>
  violations.filter((violation) => violation.kind === kind).length

const quantile = (sorted: ReadonlyArray<number>, share: number) =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN

/** The half of all reads took no longer, and 99 of 100, in milliseconds. */
export const latencies = ({ latencies }: Findings) => {
  const sorted = latencies.slice().sort((a, b) => a - b)
  return { p50: quantile(sorted, 0.5), p99: quantile(sorted, 0.99) }
}

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

export const measuredTable = (all: ReadonlyArray<Measured>): string => {
  const base = all.find(({ policy }) => policy === "eventual")
  const of = base && latencies(base.findings)
  const ratio = (value: number, other: number | undefined) =>
    other === undefined ? "" : `${(value / other).toFixed(2)} x`
  return rows(
    ["policy", "reads that replicas answered", "extra round trips a read", "p50 of reads, against `eventual`", "p99"],
    all.map((measured) => {
      const { findings, policy, questions, share } = measured
      const { p50, p99 } = latencies(findings)
      return [
        `\`${policy}\``,
        `${(100 * share).toFixed(1)}%${isMet(isCheap(measured))}`,
        (questions / findings.reads).toFixed(4),
        ratio(p50, of?.p50),
        ratio(p99, of?.p99)
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
    ...latencies(findings)
  }))
})
