/** What is logged of the servers, each change once. The annotations have the names of `Telemetry.attributes`. */
import * as Effect from "effect/Effect"
import * as Record from "effect/Record"
import type { Engine } from "../../Engine.js"
import * as Health from "../../Health.js"
import { attributes } from "../../Telemetry.js"
import * as Log from "../validation/log.js"
import { printable } from "../validation/printValue.js"

const annotated = (
  write: Effect.Effect<void>,
  name: string,
  annotations: Readonly<Record<string, unknown>>
): Effect.Effect<void> =>
  Effect.annotateLogs(
    write,
    Record.map({ [attributes.event]: name, ...annotations }, (value) =>
      typeof value === "string" ? printable(value) : value
    )
  )

const of = ({ engine, group }: { readonly engine: string | undefined; readonly group: string }) => ({
  [attributes.engine]: engine ?? "none",
  [attributes.group]: group
})

/** Logs an event. */
export const log: (event: Health.Event) => Effect.Effect<void> = Health.Event.$match({
  StateChanged: (event) => {
    const { engine, from, reason, to } = event
    const line = `${engine} is ${to}${reason === undefined ? "" : `: ${reason}`}`
    const write = to !== "up" ? Log.warning(line) : from === "starting" ? Log.debug(line) : Log.info(line)
    const states = { [attributes.state]: to, [attributes.previousState]: from }
    return annotated(write, "state_changed", { ...of(event), ...states })
  },
  Drained: (event) => annotated(Log.info(`${event.engine} is drained`), "drained", of(event)),
  Undrained: (event) => annotated(Log.info(`${event.engine} is back`), "undrained", of(event)),
  PrimaryChanged: (event) => {
    const { engine, from, reason } = event
    const write =
      engine === undefined
        ? Log.error(`No server takes the writes: ${reason}`)
        : Log.warning(`Writes go to ${engine}: ${reason}`)
    return annotated(write, "primary_changed", { ...of(event), [attributes.previousEngine]: from })
  },
  PrimaryDisputed: (event) => {
    const rivals = event.rivals.join(", ")
    const write = Log.error(
      `${rivals} claims to be the primary too. Writes go to ${event.engine ?? "none"}; stop the other, and look for what was written there`
    )
    return annotated(write, "primary_disputed", { ...of(event), [attributes.rivals]: rivals })
  },
  EngineAdded: (event) =>
    annotated(Log.info(`The topology has a new server: ${event.engine}`), "engine_added", of(event)),
  EngineRemoved: (event) =>
    annotated(Log.info(`The topology has no ${event.engine} any more`), "engine_removed", of(event))
})

/** Logs that an engine opens connections with another configuration, to the same server. */
export const logRenewed = (group: string, { name }: Engine): Effect.Effect<void> =>
  annotated(Log.debug(`${name} opens connections with its new configuration`), "renewed", of({ engine: name, group }))

/** Logs that an engine stands for another server now. */
export const logRebound = (group: string, { address, name }: Engine): Effect.Effect<void> => {
  const { host, port } = address
  const where = host === undefined ? "the server of the environment" : port === undefined ? host : `${host}:${port}`
  return annotated(Log.info(`${name} connects to ${where} from now on`), "rebound", {
    ...of({ engine: name, group }),
    ...(host === undefined ? {} : { [attributes.serverAddress]: host }),
    ...(port === undefined ? {} : { [attributes.serverPort]: port })
  })
}

/** Logs that a standby would refuse every statement, and what was done about it. */
export const logSerializable = ({ name }: Engine): Effect.Effect<void> =>
  Effect.annotateLogs(
    Log.warning(
      `${name} is a standby and its default_transaction_isolation is serializable, which standbys refuse: ` +
        "the router reads there at repeatable read"
    ),
    { [attributes.event]: "isolation_changed", [attributes.engine]: name }
  )

/** Logs that an engine is several servers. */
export const logBalanced = ({ name }: Engine): Effect.Effect<void> =>
  annotated(
    Log.warning(
      `Several servers answer at the address of ${name}, in turn: an engine must be one server. What they have replayed is not ` +
        "known, so reads go to the primary for a while after a write; list the servers, or use Topology.dns"
    ),
    "balanced",
    { [attributes.engine]: name }
  )

/** Logs that a primary takes no writes though it is the primary, or takes them again. */
export const logReadOnly = ({ name }: Engine, isReadOnly: boolean): Effect.Effect<void> =>
  annotated(
    isReadOnly
      ? Log.warning(
          `${name} is the primary and refuses writes: default_transaction_read_only is on. A provider sets it when the disk is full`
        )
      : Log.info(`${name} takes writes again: its connections are replaced, which would go on refusing them`),
    isReadOnly ? "read_only" : "read_write",
    { [attributes.engine]: name }
  )
