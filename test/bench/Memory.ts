/**
 * Memory that is in use: the heap and what hangs on it (buffers, the parser's own memory), after a garbage collection. What
 * is garbage depends on when the collector last ran, and so says nothing.
 */
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"

setFlagsFromString("--expose-gc")
const collectGarbage: () => void = runInNewContext("gc")

const megabyte = 1_000_000

/** Megabytes in use now. */
export const live = (): number => {
  collectGarbage()
  const { external, heapUsed } = process.memoryUsage()
  return (heapUsed + external) / megabyte
}

/** Megabytes that the process has from the system. */
export const resident = (): number => process.memoryUsage.rss() / megabyte

/** Looks at the memory in use when asked, and tells the most that was there beyond what there was in the beginning. */
export const peak = () => {
  const before = live()
  let most = 0
  return {
    look: () => {
      most = Math.max(most, live() - before)
    },
    get megabytes() {
      return most
    }
  }
}
