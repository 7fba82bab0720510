/**
 * Servers from Patroni's REST interface: what it answers (from its documentation and `cluster_as_json` of version 4.1.4), what
 * becomes of it, and what happens when some of the interfaces are gone.
 */
import { FetchHttpClient, HttpClient, HttpClientError, HttpClientResponse } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Option, Redacted, TestClock } from "effect"
import * as RouterError from "effect-db-router/RouterError"
import * as Topology from "effect-db-router/Topology"
import * as Endpoint from "../support/endpoint.js"

const secret = "hunter2"

const reader = (options: Topology.PatroniOptions) =>
  Effect.map(Topology.patroni(options), ({ source }) => source!.members)

const read = (options: Topology.PatroniOptions) => Effect.flatten(reader(options))

const live = (what: string, test: () => Effect.Effect<unknown, unknown, Layer.Layer.Success<typeof services>>) =>
  it.live(what, () => test().pipe(Effect.provide(services), Effect.timeout("20 seconds")))

const services = Layer.mergeAll(FetchHttpClient.layer, Layer.scope)

/** The answer in Patroni's documentation of GET /cluster. */
const documented = {
  members: [
    {
      name: "patroni1",
      role: "leader",
      state: "running",
      api_url: "http://10.89.0.4:8008/patroni",
      host: "10.89.0.4",
      port: 5432,
      timeline: 5,
      tags: { clonefrom: true }
    },
    {
      name: "patroni2",
      role: "replica",
      state: "streaming",
      api_url: "http://10.89.0.6:8008/patroni",
      host: "10.89.0.6",
      port: 5433,
      timeline: 5,
      tags: { clonefrom: true },
      receive_lag: 0,
      receive_lsn: "0/4000060",
      replay_lag: 0,
      replay_lsn: "0/4000060",
      lag: 0,
      lsn: "0/4000060"
    }
  ],
  scope: "demo",
  scheduled_switchover: { at: "2023-09-24T10:36:00+02:00", from: "patroni1", to: "patroni3" }
}

const instance = (name: string, fields: object = {}) => ({
  name,
  role: "replica",
  state: "streaming",
  api_url: `http://${name}.invalid:8008/patroni`,
  host: name,
  port: 5432,
  timeline: 1,
  ...fields
})

const answering = (...members: ReadonlyArray<unknown>) => Endpoint.make(Endpoint.json({ members, scope: "demo" }))

describe("the members of a Patroni cluster", () => {
  live("are the servers, with their roles", () =>
    Effect.gen(function* () {
      const { asked, url } = yield* Endpoint.make(Endpoint.json(documented))
      assert.deepStrictEqual(yield* read({ urls: [url] }), [
        { host: "10.89.0.4", port: 5432, name: "patroni1", role: "primary", reads: true },
        { host: "10.89.0.6", port: 5433, name: "patroni2", role: "replica", reads: true }
      ])
      assert.strictEqual(asked[0]!.url, "/cluster")
      assert.isUndefined(asked[0]!.authorization)
    })
  )

  live("are those that run, whatever their role is called", () =>
    Effect.gen(function* () {
      const { url } = yield* answering(
        instance("a", { role: "leader", state: "running" }),
        instance("b", { role: "sync_standby" }),
        instance("c", { role: "quorum_standby", state: "in archive recovery" }),
        instance("d", { role: "standby_leader" }),
        instance("e", { role: "replica", state: "running" }),
        instance("f", { role: "of the future" }),
        ...[
          "stopped",
          "stopping",
          "starting",
          "start failed",
          "restarting",
          "crashed",
          "creating replica",
          "initializing new cluster",
          "",
          undefined
        ].map((state, index) => instance(`x${index}`, { state })),
        instance("no-address", { host: undefined, port: undefined })
      )
      const found = yield* read({ urls: [url] })
      assert.deepStrictEqual(
        found.map(({ name, role }) => [name, role]),
        [
          ["a", "primary"],
          ["b", "replica"],
          ["c", "replica"],
          ["d", "replica"],
          ["e", "replica"],
          ["f", undefined]
        ]
      )
    })
  )

  live("have tags: no reads where noloadbalance is set, and a zone", () =>
    Effect.gen(function* () {
      const { url } = yield* answering(
        instance("a", { tags: { noloadbalance: true, zone: "eu-1a" } }),
        instance("b", { tags: { noloadbalance: false, nofailover: true, nosync: true, zone: 7 } }),
        instance("c", { tags: { noloadbalance: "yes" }, role: "leader", state: "running" }),
        instance("d", { tags: null })
      )
      const found = yield* read({ urls: [url] })
      assert.deepStrictEqual(
        found.map(({ name, reads, zone }) => [name, reads, zone]),
        [
          ["a", false, "eu-1a"],
          ["b", true, undefined],
          ["c", false, undefined],
          ["d", true, undefined]
        ]
      )
    })
  )

  live("may have addresses of IPv6", () =>
    Effect.gen(function* () {
      const { url } = yield* answering(instance("a", { host: "fd00::1" }))
      assert.strictEqual((yield* read({ urls: [url] }))[0]!.host, "fd00::1")
    })
  )

  const html = "<!DOCTYPE html><title>Sign in</title>"
  const wrong: ReadonlyArray<readonly [string, Endpoint.Answer, string]> = [
    ["HTML", Endpoint.text(html, { type: "text/html" }), "its answer is not JSON but text/html"],
    ["503", Endpoint.json(documented, 503), "it answered 503"],
    ["half of it", Endpoint.text(JSON.stringify(documented).slice(0, 300)), "is not JSON, or was cut short"],
    ["a list", Endpoint.json(documented.members), "answer is a list of 2. Patroni answers GET /cluster with"],
    ["a text", Endpoint.json("members"), 'answer is "members". Patroni answers GET /cluster'],
    ["the status of one node", Endpoint.json({ state: "running", role: "primary" }), "answer.members is missing"],
    ["no list of members", Endpoint.json({ members: { a: secret } }), "answer.members is an object. Patroni answers"],
    [
      "a list for tags",
      Endpoint.json({ members: [instance("a", { tags: [secret] })] }),
      "tags is a list of 1. Patroni"
    ],
    ["a member without a name", Endpoint.json({ members: [{ role: "leader" }] }), "answer.members[0].name is missing"],
    ["a port that is none", Endpoint.json({ members: [instance("a", { port: "x" })] }), "members[0].port is"],
    ["a port out of range", Endpoint.json({ members: [instance("a", { port: 0 })] }), "members[0].port is 0"],
    ["no members", Endpoint.json({ members: [] }), "none of the 0 members"],
    ["stopped ones", Endpoint.json({ members: [instance("a", { state: "stopped" })] }), "none of the 1 members"],
    ["one twice", Endpoint.json({ members: [instance("a"), instance("a")] }), "called the same"],
    ["a URL for a host", Endpoint.json({ members: [instance("a", { host: `pg://a:${secret}@b` })] }), "not a URL"],
    ["more than 1 MiB", Endpoint.text(`{"members":[${" ".repeat(1024 * 1024)}]}`), "longer than 1 MiB"]
  ]

  for (const [what, answer, says] of wrong) {
    live(`that are answered with ${what} are an error that says so, without a secret`, () =>
      Effect.gen(function* () {
        const { port } = yield* Endpoint.make(answer)
        const error = yield* Effect.flip(read({ urls: [`http://app:${secret}@127.0.0.1:${port}/?key=${secret}`] }))
        assert.instanceOf(error, RouterError.TopologyError)
        assert.include(error.message, says)
        assert.include(error.message, `http://127.0.0.1:${port}/cluster?<redacted>`)
        assert.notInclude(Endpoint.seen(error), secret)
      })
    )
  }
})

describe("the REST interfaces of a Patroni cluster", () => {
  live("are asked under /cluster, whatever path they are given with", () =>
    Effect.gen(function* () {
      const { asked, url } = yield* answering(instance("a"))
      for (const path of ["", "/", "/patroni", "/patroni/", "/cluster", "/proxy", "/proxy/", "/proxy/patroni"]) {
        yield* read({ urls: [`${url}${path}`] })
      }
      assert.deepStrictEqual(
        asked.map(({ url }) => url),
        [...Array.from({ length: 5 }, () => "/cluster"), ...Array.from({ length: 3 }, () => "/proxy/cluster")]
      )
    })
  )

  live("are asked in turn, and the one that answered is asked first", () =>
    Effect.gen(function* () {
      const dead = yield* Endpoint.closed
      const failing = yield* Endpoint.make(Endpoint.text("", { status: 503 }))
      const nonsense = yield* answering(instance("a", { port: 0 }))
      const good = yield* answering(instance("a"))
      const unused = yield* answering(instance("b"))
      const members = yield* reader({ urls: [dead, failing.url, nonsense.url, good.url, unused.url] })
      assert.strictEqual((yield* members)[0]!.name, "a")
      assert.strictEqual((yield* members)[0]!.name, "a")
      assert.deepStrictEqual(
        [failing, nonsense, good, unused].map(({ asked }) => asked.length),
        [1, 1, 2, 0]
      )
    })
  )

  live("of other members are remembered, and asked when the first ones are gone", () =>
    Effect.gen(function* () {
      const [one, two, three] = yield* Effect.all([answering(), answering(), answering()])
      const cluster = Endpoint.json({
        members: [
          instance("a", { role: "leader", state: "running", api_url: `${one.url}/patroni` }),
          instance("b", { api_url: `${two.url}/patroni` }),
          // Its PostgreSQL is stopped, its Patroni answers.
          instance("c", { state: "stopped", api_url: `${three.url}/patroni` })
        ]
      })
      for (const each of [one, two, three]) each.answer = cluster
      const members = yield* reader({ urls: [one.url] })
      assert.strictEqual((yield* members).length, 2)
      yield* one.kill
      assert.strictEqual((yield* members).length, 2)
      assert.deepStrictEqual([two.asked.length, three.asked.length], [1, 0])
      yield* two.kill
      assert.strictEqual((yield* members).length, 2)
      yield* three.kill
      const error = yield* Effect.flip(members)
      for (const { url } of [one, two, three]) assert.include(error.message, `${url}/cluster: it cannot be reached`)
    })
  )

  live(
    "that are silent hold nothing up: the next one is asked too after the patience, and the first answer counts",
    () =>
      Effect.gen(function* () {
        const slow = yield* Endpoint.make(Endpoint.silence)
        const good = yield* answering(instance("a"))
        const members = yield* reader({ urls: [slow.url, good.url], patience: "50 millis" })
        assert.strictEqual((yield* members)[0]!.name, "a")
        while (slow.open() > 0) yield* Effect.sleep("10 millis")
        // An answer that comes late counts, where no other does.
        slow.answer = (response, request) =>
          setTimeout(() => Endpoint.json({ members: [instance("late")] })(response, request), 300)
        good.answer = Endpoint.silence
        assert.strictEqual((yield* members)[0]!.name, "late")
      })
  )

  live("that all are silent are an error after the timeout", () =>
    Effect.gen(function* () {
      const [one, two] = yield* Effect.all([Endpoint.make(Endpoint.silence), Endpoint.make(Endpoint.silence)])
      const options = { urls: [one.url, two.url], patience: "20 millis", timeout: "200 millis" } as const
      const error = yield* Effect.flip(read(options))
      assert.include(error.message, `${one.url}/cluster, ${two.url}/cluster`)
      assert.include(error.message, "took longer than 200ms")
      while (one.open() + two.open() > 0) yield* Effect.sleep("10 millis")
    })
  )

  live("are sent the credentials, those that were learned too", () =>
    Effect.gen(function* () {
      const two = yield* answering(instance("a"))
      const one = yield* answering(instance("a", { api_url: `${two.url}/patroni` }))
      const basic = `Basic ${Buffer.from(`app:${secret}`).toString("base64")}`
      const auth = { username: "app", password: Redacted.make(secret) }
      const members = yield* reader({ urls: [one.url], auth })
      yield* members
      yield* one.kill
      yield* members
      assert.deepStrictEqual([one.asked[0]!.authorization, two.asked[0]!.authorization], [basic, basic])
      const own = yield* answering(instance("a"))
      yield* read({ urls: [own.url.replace("://", `://app:${secret}@`)] })
      assert.strictEqual(own.asked[0]!.authorization, basic)
    })
  )

  live("that an answer names, and that are no URLs, are not asked", () =>
    Effect.gen(function* () {
      const one = yield* answering(
        ...["nonsense", "file:///etc/passwd", `http://app:${secret}@127.0.0.1:1/`, "", null].map((api_url, index) =>
          instance(`m${index}`, { api_url })
        )
      )
      const members = yield* reader({ urls: [one.url] })
      assert.strictEqual((yield* members).length, 5)
      yield* one.kill
      const error = yield* Effect.flip(members)
      assert.strictEqual(error.message.split("it cannot be reached").length, 2)
      assert.notInclude(Endpoint.seen(error), secret)
    })
  )

  live("are shown by their origin only, where they are secret", () =>
    Effect.gen(function* () {
      const dead = yield* Endpoint.closed
      const error = yield* Effect.flip(read({ urls: [Redacted.make(`${dead}/${secret}`)] }))
      assert.include(error.message, `${dead}/<redacted>`)
      assert.notInclude(Endpoint.seen(error), secret)
    })
  )

  live("make a layer", () =>
    Effect.gen(function* () {
      const { url } = yield* answering(instance("a"))
      const topology = yield* Effect.provide(Topology.Topology, Topology.layerPatroni({ urls: [url] }))
      assert.strictEqual(topology.name, "patroni")
      assert.strictEqual((yield* topology.source!.members)[0]!.name, "a")
    })
  )

  /** Interfaces by host, without a network; yields what was asked. */
  const pretended = (answers: Record<string, unknown>) => {
    const asked: Array<string> = []
    const client = HttpClient.make((request, url) => {
      asked.push(url.origin)
      const answer = answers[url.hostname]
      if (answer === "silence") return Effect.never
      return answer === undefined
        ? Effect.fail(new HttpClientError.RequestError({ request, reason: "Transport" }))
        : Effect.succeed(HttpClientResponse.fromWeb(request, Response.json(answer)))
    })
    return { asked, client }
  }

  it.effect("are not asked over http, with credentials, because an answer over https says so", () =>
    Effect.gen(function* () {
      const at = (api_url: string) => ({ members: [instance("a", { api_url })] })
      const answers: Record<string, unknown> = {
        db1: {
          members: [...at("http://db2:8008/patroni").members, instance("b", { api_url: "https://db3:8008/patroni" })]
        },
        db2: at("http://db2:8008/patroni"),
        db3: at("https://db3:8008/patroni")
      }
      const { asked, client } = pretended(answers)
      const members = yield* Effect.provideService(
        reader({ urls: ["https://db1:8008"] }),
        HttpClient.HttpClient,
        client
      )
      yield* members
      delete answers.db1
      yield* members
      assert.deepStrictEqual(asked, ["https://db1:8008", "https://db1:8008", "https://db3:8008"])
    })
  )

  it.effect("have a second each before the next is asked, and 5 seconds together", () =>
    Effect.gen(function* () {
      const urls = ["http://db1", "http://db2", "http://db3"]
      const { asked, client } = pretended({ db1: "silence", db2: "silence", db3: "silence" })
      const members = yield* Effect.provideService(reader({ urls }), HttpClient.HttpClient, client)
      const fiber = yield* Effect.fork(Effect.flip(members))
      const after = [
        [0, 1],
        [999, 1],
        [1, 2],
        [999, 2],
        [1, 3],
        [2999, 3]
      ] as const
      for (const [millis, count] of after) {
        yield* TestClock.adjust(millis)
        assert.strictEqual(asked.length, count)
      }
      assert.isTrue(Option.isNone(yield* Fiber.poll(fiber)))
      yield* TestClock.adjust(1)
      assert.include((yield* Fiber.join(fiber)).message, "took longer than 5s")
    })
  )

  for (const [what, options, field] of [
    ["no URLs", {}, "urls"],
    ["an empty list", { urls: [] }, "urls"],
    ["one URL that is no list", { urls: "http://db1:8008" }, "urls"],
    ["a URL of PostgreSQL", { urls: ["http://db1:8008", `postgresql://app:${secret}@db1`] }, "urls[1]"],
    ["a host", { urls: ["db1:8008"] }, "urls[0]"],
    ["no patience", { urls: ["http://db1:8008"], patience: 0 }, "patience"]
  ] as const) {
    live(`refuse ${what}`, () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(Topology.patroni(options as unknown as Topology.PatroniOptions))
        assert.instanceOf(error, RouterError.RouterConfigError)
        assert.strictEqual(error.field, field)
        assert.notInclude(Endpoint.seen(error), secret)
      })
    )
  }
})
