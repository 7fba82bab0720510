/**
 * One server: what its answers mean.
 */
import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import type { ResolvedEngine, RouterConfig } from "../../RouterConfig.js"
import { healthOf } from "./cluster.js"
import type { Answer, Answers, Inspected } from "./inspect.js"
import { millisOf, type Privileges, type Settings } from "./questions.js"
import { type Finding, ok, problem, warning } from "./report.js"
import type { Target } from "./targets.js"
import type { Told } from "./told.js"

interface Asked {
  readonly name: string
  readonly engine: ResolvedEngine
  readonly config: RouterConfig
  readonly answers: Answers
  readonly isWriter: boolean
  /** Whether it belongs to the system that is routed, and not to a group to bind to. */
  readonly isOfSystem: boolean
}

const right = <A>(answer: Answer<A> | undefined): A | undefined =>
  answer !== undefined && Either.isRight(answer) ? answer.right : undefined

const isReplica = ({ answers: { identity } }: Asked) => identity.isStandby

/** As PostgreSQL takes it back. */
const identifier = (name: string) => (/^[a-z_][a-z0-9_]*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`)

const text = (millis: number) => Duration.format(Duration.millis(millis))

const oldestVersion = 140_000

const version = ({ answers: { identity }, name }: Asked): ReadonlyArray<Finding> =>
  identity.versionNumber >= oldestVersion
    ? []
    : [
        problem(
          "version",
          name,
          `It runs PostgreSQL ${identity.version}; the router needs 14 or newer`,
          "Upgrade the server"
        )
      ]

const privileges = (asked: Asked): ReadonlyArray<Finding> => {
  const { answers, name } = asked
  const user = identifier(answers.identity.user)
  const known = right(answers.privileges)
  const findings = known === undefined ? [] : functions(name, user, known)
  // Why it fails is said above, if it is that.
  if (Either.isLeft(answers.probe) && findings.length === 0) {
    const { message, remedy } = answers.probe.left
    findings.push(problem("privileges", name, `The router's probe fails: ${message}`, remedy))
  }
  const { catalog } = answers
  if (catalog !== undefined && Either.isLeft(catalog)) {
    const { message, remedy } = catalog.left
    const what = `The catalog cannot be read, without which the router does not start: ${message}`
    findings.push(problem("catalog", name, what, remedy))
  }
  if (known !== undefined && !known.readsStatistics && isReplica(asked)) {
    findings.push(
      warning(
        "statistics",
        name,
        "Its role does not see the timeline that the replica receives, so after a promotion it gets reads later than it could",
        `On the primary: GRANT pg_read_all_stats TO ${user}`
      )
    )
  }
  return findings.length > 0 ? findings : [ok("privileges", name, "Its role may do what the router needs")]
}

const functions = (name: string, user: string, { absent, refused }: Privileges): Array<Finding> => {
  const findings: Array<Finding> = []
  if (refused.length > 0) {
    const list = refused.map((one) => `pg_catalog.${one}`).join(", ")
    const what = `Its role ${user} may not call ${refused.join(", ")}, which the router's probes call`
    findings.push(problem("privileges", name, what, `On the primary: GRANT EXECUTE ON FUNCTION ${list} TO ${user}`))
  }
  if (absent.length > 0) {
    const what = `It has no ${absent.join(", ")}, which the router's probes call`
    findings.push(problem("privileges", name, what, "Use PostgreSQL itself, 14 or newer"))
  }
  return findings
}

const volatility = ({ answers, name }: Asked): ReadonlyArray<Finding> =>
  (right(answers.catalog)?.folds?.functions ?? []).map(({ name: function_, policies }) => {
    const by = policies.length === 0 ? "" : `, called by policies of row-level security: ${policies.join(", ")}`
    const what = `${function_} is labelled IMMUTABLE and reads, or may read, a setting${by}`
    const so = "Plans keep its value for who has another one, so the router prepares no statement that may reach it"
    return warning("volatility", name, `${what}. ${so}`, `ALTER FUNCTION ${function_} STABLE`)
  })

/** A clock that is further off than this matters to those who compare its times with this machine's. */
const maxSkewMillis = 1_000

const clock = ({ answers: { skew }, name }: Asked): ReadonlyArray<Finding> => {
  if (Math.abs(skew.millis) - skew.uncertainty <= maxSkewMillis) {
    return [ok("clock", name, "Its clock and this machine's agree")]
  }
  const direction = skew.millis > 0 ? "ahead of" : "behind"
  return [
    warning(
      "clock",
      name,
      `Its clock is ${text(Math.abs(skew.millis))} ${direction} this machine's`,
      "Synchronise both with NTP: tokens, and what now() writes, are compared by the clocks of several machines"
    )
  ]
}

const isLocal = (host: string | undefined) => host === undefined || /^(?:\/|localhost$|127\.|\[?::1\]?$)/.test(host)

const encryption = ({ answers, engine, name }: Asked): ReadonlyArray<Finding> =>
  answers.identity.isEncrypted !== false || answers.isProxied || isLocal(engine.address.host)
    ? []
    : [
        warning(
          "encryption",
          name,
          "The connection to it is not encrypted",
          "Add sslmode=verify-full to its URL, or set the option ssl"
        )
      ]

const proxy = ({ answers, config, name }: Asked): ReadonlyArray<Finding> => {
  if (!answers.isProxied) return []
  const what = "A proxy stands before it, such as PgBouncer: the process that answers is not the one that was announced"
  if (config.maxPreparedPerConnection === 0) return [ok("proxy", name, what)]
  return [
    warning(
      "proxy",
      name,
      `${what}. Prepared statements fail behind one that pools by transaction, unless it knows them`,
      "With PgBouncer before 1.21, or max_prepared_statements = 0, set DB_ROUTER_PREPARE=false; LISTEN needs pool_mode = session"
    )
  ]
}

const balancer = ({ answers: { servers }, name }: Asked): ReadonlyArray<Finding> =>
  servers < 2
    ? []
    : [
        warning(
          "balancer",
          name,
          `Its address leads to several servers: some connections at the same time have met ${servers}`,
          "List each server at its own address; for a name that leads to several use Topology.dns. The router cannot tell which of them has seen a write, so it keeps reads on the primary for a while after one"
        )
      ]

const isolation = (asked: Asked, settings: Settings): ReadonlyArray<Finding> =>
  isReplica(asked) && settings.get("default_transaction_isolation")?.value === "serializable"
    ? [
        warning(
          "isolation",
          asked.name,
          "Its default_transaction_isolation is serializable, which standbys refuse; the router reads there at repeatable read",
          "Set the default per transaction, or for roles that write only"
        )
      ]
    : []

const readOnly = ({ answers, isWriter, name }: Asked, settings: Settings): ReadonlyArray<Finding> =>
  isWriter && settings.get("default_transaction_read_only")?.value === "on"
    ? [
        problem(
          "read-only",
          name,
          "Its default_transaction_read_only is on for this role, so writes fail",
          `ALTER ROLE ${identifier(answers.identity.user)} RESET default_transaction_read_only, or where else it is set`
        )
      ]
    : []

const shortDelayMillis = 1_000

const conflicts = (asked: Asked, settings: Settings): ReadonlyArray<Finding> => {
  if (!isReplica(asked)) return []
  const { name } = asked
  const feedback = settings.get("hot_standby_feedback")?.value === "on"
  const delay = Number(settings.get("max_standby_streaming_delay")?.value ?? 0)
  const interval = settings.get("wal_receiver_status_interval")?.value
  if (feedback && interval === "0") {
    const message = "hot_standby_feedback has no effect: wal_receiver_status_interval is 0"
    return [warning("feedback", name, message, 'Set wal_receiver_status_interval = "10s"')]
  }
  if (feedback) return [ok("conflicts", name, "hot_standby_feedback keeps the rows that its reads need")]
  const remedy = "Set hot_standby_feedback = on, or max_standby_streaming_delay to what its longest read takes"
  if (delay < 0) {
    const message = "A long read there holds up replay for as long as it takes, and the replica gets no reads meanwhile"
    return [warning("conflicts", name, `${message} (max_standby_streaming_delay = -1)`, remedy)]
  }
  if (delay < shortDelayMillis) {
    const message = `Reads that are in the way of replay are ended after ${delay} ms, and run elsewhere`
    return [warning("conflicts", name, message, remedy)]
  }
  return [ok("conflicts", name, `Reads that are in the way of replay are ended after ${text(delay)}`)]
}

const synchronous = ({ answers, isWriter, name }: Asked, settings: Settings): ReadonlyArray<Finding> => {
  const names = settings.get("synchronous_standby_names")?.value ?? ""
  const isAsynchronous = /^(?:off|local)$/.test(settings.get("synchronous_commit")?.value ?? "on")
  if (!isWriter || names === "" || isAsynchronous) return []
  const connected = right(answers.synchronous)
  if (right(answers.privileges)?.readsStatistics === true && connected === 0) {
    const message = `Every commit waits for a standby of synchronous_standby_names = ${names}, and none is connected`
    return [problem("synchronous", name, message, "Start such a standby, or change synchronous_standby_names")]
  }
  return [ok("synchronous", name, "Its commits wait for standbys (synchronous_standby_names)")]
}

/** The pool's own, where nothing else is said. */
const defaultIdleMillis = 10_000

const idleTimeout = ({ config, engine, name }: Asked, settings: Settings): ReadonlyArray<Finding> => {
  const limit = millisOf(settings, "idle_session_timeout")
  if (limit === undefined) return []
  const { idleTimeout } = engine.client
  const given = idleTimeout === undefined ? defaultIdleMillis : Duration.toMillis(idleTimeout)
  const kept = given === 0 ? Number.POSITIVE_INFINITY : given
  if (kept >= limit) {
    const pool = given === 0 ? "for ever" : `for ${text(given)}`
    const message = `It closes connections that are idle for ${text(limit)} (idle_session_timeout), and the pool keeps them ${pool}`
    return [warning("idle-timeout", name, message, "Set idleTimeout (DB_ROUTER_IDLE_TIMEOUT) to less")]
  }
  const interval = Duration.toMillis(healthOf(config).interval) * 1.2
  if (config.health === undefined || interval < limit) return []
  const message = `It closes connections that are idle for ${text(limit)} (idle_session_timeout): each probe connects anew`
  return [
    warning("idle-timeout", name, message, "Set health.interval (DB_ROUTER_HEALTH_INTERVAL) to less, or that to more")
  ]
}

const replay = ({ answers, isOfSystem, name }: Asked): ReadonlyArray<Finding> => {
  const found = right(answers.replay)
  if (found === undefined || !isOfSystem) return []
  if (found.isPaused) {
    const remedy = "There: SELECT pg_wal_replay_resume()"
    return [problem("replay", name, "Replay is paused, so it falls behind and will get no reads", remedy)]
  }
  if (found.hasReceiver) return []
  const message = "It does not stream from any server now"
  return [warning("replay", name, message, "Look at primary_conninfo and its log, unless it reads an archive")]
}

const unanswered = ({ answers, name }: Asked): ReadonlyArray<Finding> => {
  const questions: ReadonlyArray<readonly [string, Answer<unknown> | undefined]> = [
    ["connections", answers.capacity],
    ["settings", answers.settings],
    ["privileges", answers.privileges],
    ["position", answers.position],
    ["replay", answers.replay],
    ["synchronous standbys", answers.synchronous]
  ]
  return questions.flatMap(([what, answer]) =>
    answer !== undefined && Either.isLeft(answer)
      ? [warning("question", name, `It does not tell its ${what}: ${answer.left.message}`, answer.left.remedy)]
      : []
  )
}

/** A server that cannot be used at all. */
export const unreachable = ({ isOfSystem, name }: Target, { message, remedy }: Told): Finding => {
  const meanwhile = isOfSystem ? "" : "; what is bound to its group fails, unless it has others"
  return problem("connect", name, `It cannot be connected to: ${message}${meanwhile}`, remedy)
}

/** What there is to say of a server that answers. */
export const examine = (
  target: Target,
  { answers }: Inspected,
  config: RouterConfig,
  isWriter: boolean
): ReadonlyArray<Finding> => {
  const { isOfSystem, name } = target
  const asked: Asked = { name, engine: target.engine!, config, answers, isWriter, isOfSystem }
  const settings = right(answers.settings)
  return [
    ok("connect", name, "It answers"),
    ...[version, privileges, volatility, replay, clock, encryption, proxy, balancer, unanswered].flatMap((judge) =>
      judge(asked)
    ),
    ...(settings === undefined
      ? []
      : [isolation, readOnly, conflicts, synchronous, idleTimeout].flatMap((judge) => judge(asked, settings)))
  ]
}
