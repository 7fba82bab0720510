import * as Crypto from "node:crypto"
import * as Net from "node:net"
import * as Effect from "effect/Effect"
import { PgClusterError } from "./error.js"

// Below the ranges that Linux (from 32768) and macOS (from 49152) take client ports from: a port stays free while its
// server is stopped.
const lowest = 15_000
const highest = 32_000

const hold = (port: number): Promise<Net.Server | undefined> =>
  new Promise((resolve) => {
    const server = Net.createServer()
    server.once("error", () => resolve(undefined))
    server.listen({ host: "127.0.0.1", port, exclusive: true }, () => resolve(server))
  })

const release = (server: Net.Server): Promise<void> => new Promise((resolve) => server.close(() => resolve()))

const choose = async (count: number): Promise<ReadonlyArray<number>> => {
  const held = new Map<number, Net.Server>()
  for (let tries = 0; held.size < count && tries < 500; tries++) {
    const port = Crypto.randomInt(lowest, highest)
    const server = held.has(port) ? undefined : await hold(port)
    if (server !== undefined) held.set(port, server)
  }
  await Promise.all([...held.values()].map(release))
  return [...held.keys()]
}

/**
 * Different ports of 127.0.0.1 without a listener. Another program may take one before its server starts: the cluster then
 * starts again with others.
 */
export const free = (count: number): Effect.Effect<ReadonlyArray<number>, PgClusterError> =>
  Effect.uninterruptible(
    Effect.filterOrFail(
      Effect.promise(() => choose(count)),
      (ports) => ports.length === count,
      () =>
        new PgClusterError({
          reason: "PortTaken",
          detail: `Fewer than ${count} ports between ${lowest} and ${highest} are free on 127.0.0.1`
        })
    )
  )
