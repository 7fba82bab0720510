/**
 * Whether the servers have room for the pools.
 */
import * as Either from "effect/Either"
import type { RouterConfig } from "../../RouterConfig.js"
import { isSameServer } from "../health/election.js"
import { type Examined, inspectedOf, probeOf } from "./cluster.js"
import type { Answers } from "./inspect.js"
import type { Capacity } from "./questions.js"
import { type Connections, type Finding, ok, problem, warning } from "./report.js"

const capacityOf = (answers: Answers): Capacity | undefined =>
  Either.isRight(answers.capacity) ? answers.capacity.right : undefined

const reservedOf = (capacity: Capacity) => capacity.superuserReserved + capacity.reserved

/** For how many connections of this role there is room on an empty server, and what sets that limit. */
const available = (capacity: Capacity, isSuperuser: boolean): readonly [limit: number, name: string] => {
  const kept = isSuperuser ? 0 : capacity.superuserReserved + (capacity.mayUseReserved ? 0 : capacity.reserved)
  const limits: Array<readonly [number, string]> = [
    [capacity.max - kept, kept === 0 ? "max_connections" : `max_connections less ${kept} reserved ones`]
  ]
  // The limits of roles and databases do not hold for superusers.
  if (!isSuperuser && capacity.roleLimit !== undefined) limits.push([capacity.roleLimit, "the limit of the role"])
  if (!isSuperuser && capacity.databaseLimit !== undefined) {
    limits.push([capacity.databaseLimit, "the limit of the database"])
  }
  return limits.reduce((least, one) => (one[0] < least[0] ? one : least))
}

/** How many connections others have that count against the same limit. */
const takenByOthers = (capacity: Capacity, limit: string): number => {
  const all =
    limit === "the limit of the role"
      ? capacity.ofRole
      : limit === "the limit of the database"
        ? capacity.ofDatabase
        : capacity.inUse
  return all - capacity.own
}

export const connectionsOf = (answers: Answers): Connections | undefined => {
  const capacity = capacityOf(answers)
  if (capacity === undefined) return undefined
  const { databaseLimit, inUse, max, own, roleLimit } = capacity
  const [room] = available(capacity, answers.identity.isSuperuser)
  return { max, reserved: reservedOf(capacity), roleLimit, databaseLimit, available: room, inUse, own }
}

/**
 * The engines, those of one server together: each has a pool of its own there. Not those behind a proxy, which has connections of
 * its own to the server, however many it takes.
 */
const byServer = (all: ReadonlyArray<Examined>): ReadonlyArray<ReadonlyArray<Examined>> => {
  const servers: Array<Array<Examined>> = []
  for (const one of all) {
    const report = probeOf(one)
    if (inspectedOf(one)?.answers.isProxied !== false) continue
    const found = servers.find(([first]) => {
      const other = first && probeOf(first)
      return report !== undefined && other !== undefined && isSameServer(report, other)
    })
    if (found === undefined) servers.push([one])
    else found.push(one)
  }
  return servers
}

const ofServer = (
  engines: ReadonlyArray<Examined>,
  config: RouterConfig,
  instances: number
): ReadonlyArray<Finding> => {
  const [first] = engines
  const { answers } = inspectedOf(first!)!
  const capacity = capacityOf(answers)
  if (capacity === undefined) return []
  const probes = config.health === undefined ? 0 : 1
  const pools = engines.map(({ target }) => target.engine!.client.maxConnections)
  const needed = pools.reduce((sum, pool) => sum + pool + probes, 0) * instances
  const [room, limit] = available(capacity, answers.identity.isSuperuser)
  const others = takenByOthers(capacity, limit)
  const names = engines.map(({ target }) => target.name).join(" and ")
  const sum = `${names} may open ${needed} connections (${pools.join(" + ")} of the pools${
    probes === 0 ? "" : `, ${engines.length} of the probes`
  }, ${instances === 1 ? "one process" : `${instances} processes`})`
  const remedy = `Lower maxConnections (DB_ROUTER_MAX_CONNECTIONS), put a connection pooler in front, or raise ${limit.split(" less ")[0]}`
  if (needed > room) {
    return [problem("connections", first!.target.name, `${sum}, and there is room for ${room} (${limit})`, remedy)]
  }
  if (needed + others > room) {
    const message = `${sum}; with ${others} connections that others have now, that is more than the ${room} there is room for (${limit})`
    return [warning("connections", first!.target.name, message, remedy)]
  }
  return engines.map(({ target }) => ok("connections", target.name, "There is room for the pools"))
}

/** The pools of so many processes against what each server has room for. */
export const assess = (all: ReadonlyArray<Examined>, config: RouterConfig, instances: number): ReadonlyArray<Finding> =>
  byServer(all).flatMap((engines) => ofServer(engines, config, instances))
