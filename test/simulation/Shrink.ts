/** Makes a plan that fails small: leaves out flows, faults and operations as long as the same invariant is violated. */
import { type Op, type Plan, planOf } from "./Plan.js"
import type { Workers } from "./Workers.js"

/** All plans with one part less, the larger parts first. */
const smaller = function* (plan: Plan): Generator<Plan> {
  const { faults, flows } = plan
  // Flows keep their places: their operations are named for them.
  for (const [i, flow] of flows.entries()) {
    if (flow.ops.length > 0) yield { ...plan, flows: flows.with(i, { ...flow, ops: [] }) }
  }
  for (let size = Math.ceil(faults.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let at = 0; at < faults.length; at += size) yield { ...plan, faults: faults.toSpliced(at, size) }
  }
  for (const [i, flow] of flows.entries()) {
    for (const ops of fewer(flow.ops)) yield { ...plan, flows: flows.with(i, { ...flow, ops }) }
  }
}

const fewer = function* (ops: ReadonlyArray<Op>): Generator<ReadonlyArray<Op>> {
  for (let size = Math.ceil(ops.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let at = 0; at < ops.length; at += size) yield ops.toSpliced(at, size)
  }
  for (const [i, op] of ops.entries()) {
    if ("siblings" in op) {
      for (const j of op.siblings.keys()) yield ops.with(i, { ...op, siblings: op.siblings.toSpliced(j, 1) })
    }
    if ("ops" in op) for (const inner of fewer(op.ops)) yield ops.with(i, { ...op, ops: inner })
    if ("branches" in op) {
      for (const [j, branch] of op.branches.entries()) {
        for (const inner of fewer(branch)) yield ops.with(i, { ...op, branches: op.branches.with(j, inner) })
      }
    }
  }
}

/** The most runs that it takes. */
const most = 600

/** The smallest plan that was found; `undefined` when the seed violates nothing. */
export const shrink = async (workers: Workers, seed: string): Promise<Plan | undefined> => {
  let plan = planOf(seed)
  const { violations } = await workers.runOne({ seed, plan })
  const [first] = violations
  if (first === undefined) return undefined
  let runs = 0
  for (let isBetter = true; isBetter && runs < most; ) {
    isBetter = false
    for (const candidate of smaller(plan)) {
      if (++runs > most) break
      const result = await workers.runOne({ seed, plan: candidate })
      if (!result.violations.some(({ invariant }) => invariant === first.invariant)) continue
      plan = candidate
      isBetter = true
      break
    }
  }
  return plan
}
