/**
 * The servers that the router would use.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type { ResolvedEngine, RouterConfig } from "../../RouterConfig.js"
import type { Member } from "../../Topology.js"
import * as member from "../discovery/memberConfig.js"
import { type Finding, problem, warning } from "./report.js"

/** A server to ask. */
export interface Target {
  readonly name: string
  readonly group: string
  /** How to connect; `undefined` where that could not be found out. */
  readonly engine: ResolvedEngine | undefined
  /** Whether it was named as one that may be the primary, and not only as a replica. */
  readonly isNamed: boolean
  /** Whether it belongs to the default or the read group, whose servers are one system. */
  readonly isOfSystem: boolean
}

export interface Targets {
  readonly targets: ReadonlyArray<Target>
  readonly findings: ReadonlyArray<Finding>
}

const isOfSystem = ({ defaultGroup, readGroup }: RouterConfig, group: string) =>
  group === defaultGroup || group === readGroup

/** The engines of the options. One that was given as an Effect may fail, and that error's text may hold a secret. */
const configured = (config: RouterConfig): Effect.Effect<Targets> =>
  Effect.gen(function* () {
    const findings: Array<Finding> = []
    const targets: Array<Target> = []
    for (const group of config.groups.values()) {
      for (const entry of group.engines) {
        const resolved = yield* Effect.option(Effect.sandbox(entry.config))
        const engine = resolved._tag === "Some" ? resolved.value : undefined
        const name = engine?.name ?? entry.name
        if (engine === undefined) {
          const what = `Its configuration, ${entry.field}, could not be obtained: the Effect failed`
          findings.push(problem("configuration", name, what, "Run that Effect alone, and look at its error"))
        }
        targets.push({
          name,
          group: group.name,
          engine,
          isNamed: group.name === config.defaultGroup,
          isOfSystem: isOfSystem(config, group.name)
        })
      }
    }
    return { targets, findings }
  })

const joined = (config: RouterConfig, given: Targets, members: ReadonlyArray<Member>): Targets => {
  const template = given.targets.find(({ group }) => group === config.defaultGroup)?.engine
  if (template === undefined) return given
  const findings = [...given.findings]
  const targets = members.map((one): Target => {
    const resolved = member.resolve(one, template)
    const name = member.nameOf(one, template)
    if (Either.isLeft(resolved)) {
      findings.push(problem("topology", name, resolved.left.message, "Correct what the topology says of it"))
    }
    return {
      name,
      group: one.role === "primary" ? config.defaultGroup : (config.readGroup ?? "read"),
      engine: Either.isRight(resolved) ? resolved.right : undefined,
      isNamed: true,
      isOfSystem: true
    }
  })
  return { targets: [...targets, ...given.targets.filter((target) => !target.isOfSystem)], findings }
}

/** The servers of the options, or those that the topology has in the place of the default and the read group. */
export const make = (config: RouterConfig): Effect.Effect<Targets> =>
  Effect.flatMap(configured(config), (given) => {
    const { source } = config.topology
    if (source === undefined) return Effect.succeed(given)
    const stays = "The router goes on with the engines of its options until it can be read"
    return Effect.match(source.members, {
      onFailure: (error) => ({
        ...given,
        findings: [...given.findings, problem("topology", undefined, error.message, stays)]
      }),
      onSuccess: (members) =>
        members.length > 0
          ? joined(config, given, members)
          : {
              ...given,
              findings: [...given.findings, warning("topology", undefined, "The topology has no servers", stays)]
            }
    })
  })
