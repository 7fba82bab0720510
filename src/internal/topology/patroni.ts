/**
 * Servers from Patroni's REST interface: `GET /cluster`, as `cluster_as_json` of its `patroni/utils.py` writes it.
 */
import type * as HttpClient from "@effect/platform/HttpClient"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Ref from "effect/Ref"
import * as Schema from "effect/Schema"
import * as check from "../validation/check.js"
import * as endpoint from "./endpoint.js"
import * as members from "./members.js"
import * as source from "./source.js"

const { optional, saying } = endpoint

const text = saying(Schema.String, "Patroni gives a text")

const Instance = endpoint.object(
  Schema.Struct({
    name: text,
    role: text,
    state: optional(text),
    host: optional(text),
    port: optional(saying(Schema.Int, "Patroni gives a whole number")),
    api_url: optional(text),
    tags: optional(saying(Schema.Record({ key: Schema.String, value: Schema.Unknown }), "Patroni gives an object"))
  }),
  "Patroni gives an object"
)

type Instance = typeof Instance.Type

const form = 'Patroni answers GET /cluster with { "members": [...] }'

const Cluster = endpoint.object(Schema.Struct({ members: endpoint.list(Schema.Array(Instance), form) }), form)

const decode = endpoint.decode(Cluster, "answer")

// `state` is that of the replication where there is one (`replication_state` of patroni/postgresql/__init__.py).
const running = new Set(["running", "streaming", "in archive recovery"])

const roles: Readonly<Record<string, "primary" | "replica">> = {
  leader: "primary",
  standby_leader: "replica",
  sync_standby: "replica",
  quorum_standby: "replica",
  replica: "replica"
}

const member = ({ host, name, port, role, tags = {} }: Instance) => ({
  host,
  port,
  name,
  role: Object.hasOwn(roles, role) ? roles[role] : undefined,
  // As in patroni/tags.py: whatever counts as true.
  reads: !tags.noloadbalance,
  zone: typeof tags.zone === "string" && tags.zone !== "" ? tags.zone : undefined
})

interface Answer {
  readonly list: ReadonlyArray<unknown>
  readonly interfaces: ReadonlyArray<string>
}

// It is judged here, so that an interface that answers nonsense does not keep the others from being asked.
const read = (answer: unknown): Either.Either<Answer, string> =>
  Either.flatMap(decode(answer), (cluster) => {
    const up = cluster.members.filter(({ host, state }) => host !== undefined && running.has(state ?? ""))
    if (up.length === 0) return Either.left(`none of the ${cluster.members.length} members that it knows is running`)
    return Either.mapBoth(members.list("members", up.map(member)), {
      onLeft: source.said,
      onRight: (list) => ({
        list,
        interfaces: cluster.members.flatMap(({ api_url }) => (api_url === undefined ? [] : [api_url]))
      })
    })
  })

// `api_url` ends in /patroni, and people copy it.
const clusterPath = (path: string): string => `${path.replace(/\/(?:patroni|cluster)?\/?$/, "")}/cluster`

// Credentials that were given for https are not sent in the clear because an answer says so.
const learn = (from: Endpoint, interfaces: ReadonlyArray<string>): ReadonlyArray<Endpoint> =>
  interfaces.flatMap((one) =>
    Either.match(endpoint.parse("api_url", one, undefined, clusterPath), {
      onLeft: () => [],
      onRight: (found) =>
        found.auth !== undefined || found.secret || (from.url.protocol === "https:" && found.url.protocol !== "https:")
          ? []
          : [{ ...found, auth: from.auth }]
    })
  )

type Endpoint = endpoint.Endpoint

/** Asks one after the other: the next one when the one before has failed, or has not answered for `patience`. */
const first = <A>(
  asks: ReadonlyArray<Effect.Effect<A, string>>,
  patience: Duration.Duration
): Effect.Effect<A, string> => {
  const from = (index: number): Effect.Effect<A, string> => {
    const ask = asks[index]!
    if (index === asks.length - 1) return ask
    return Effect.flatMap(Deferred.make<void>(), (failed) =>
      Effect.race(
        Effect.tapErrorCause(ask, () => Deferred.succeed(failed, undefined)),
        Effect.zipRight(Effect.timeoutOption(Deferred.await(failed), patience), from(index + 1))
      )
    )
  }
  return from(0)
}

interface Memory {
  /** What answered last. */
  readonly answered: Endpoint | undefined
  /** What it said. */
  readonly learned: ReadonlyArray<Endpoint>
}

const order = (given: ReadonlyArray<Endpoint>, { answered, learned }: Memory): ReadonlyArray<Endpoint> => {
  const all = new Map<string, Endpoint>()
  for (const one of [...(answered === undefined ? [] : [answered]), ...given, ...learned]) {
    if (!all.has(one.url.href)) all.set(one.url.href, one)
  }
  return Array.from(all.values())
}

const asking = (client: HttpClient.HttpClient, { patience, urls }: Resolved, memory: Ref.Ref<Memory>) =>
  Effect.gen(function* () {
    const failures: Array<string> = []
    const ask = (one: Endpoint) =>
      endpoint.get(client, one).pipe(
        Effect.flatMap(read),
        Effect.tapError((problem) => Effect.sync(() => failures.push(`${one.shown}: ${problem}`))),
        Effect.map((answer) => ({ one, answer }))
      )
    const asks = order(urls, yield* Ref.get(memory)).map(ask)
    const { answer, one } = yield* Effect.mapError(first(asks, patience), () => failures.join("; "))
    yield* Ref.set(memory, { answered: one, learned: learn(one, answer.interfaces) })
    return answer.list
  })

const anything: check.Check<unknown> = (_, given) => Either.right(given)

const isOptions = check.struct({
  ...source.fields,
  urls: anything,
  auth: endpoint.auth,
  patience: check.duration({ positive: true })
})

type Resolved = Either.Either.Right<ReturnType<typeof resolve>>

const resolve = (options: unknown) =>
  Either.gen(function* () {
    const given = yield* isOptions("", options)
    const { auth, patience, urls } = given
    if (!Array.isArray(urls) || urls.length === 0) {
      return yield* check.invalid("urls", urls, 'It must be a list of URLs: ["http://db1:8008", "http://db2:8008"]')
    }
    return {
      settings: source.settle(given, "patroni"),
      urls: yield* Either.all(urls.map((url, index) => endpoint.parse(`urls[${index}]`, url, auth, clusterPath))),
      patience: patience ?? Duration.seconds(1)
    }
  })

export const make = (client: HttpClient.HttpClient, options: unknown) =>
  Effect.gen(function* () {
    const resolved = yield* resolve(options)
    const memory = yield* Ref.make<Memory>({ answered: undefined, learned: [] })
    return source.make(resolved.settings, {
      target: resolved.urls.map(({ shown }) => shown).join(", "),
      read: asking(client, resolved, memory),
      describe: (description: string) => ({ description })
    })
  })
