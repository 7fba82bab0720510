import { Cookies, HttpServerResponse } from "@effect/platform"
import { assert, layer } from "@effect/vitest"
import { type Context, Effect, Either, Layer, Metric, Option, Redacted } from "effect"
import { Consistency, DbRouter, HttpSession, type Position, Telemetry, Token } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as Causal from "../support/causal.js"
import * as engines from "../support/engine.js"
import { type Act, type Answer, placements, quiet, type Send, type Sent, type Services } from "../support/http.js"
import * as RouterTest from "../support/router.js"

const { insert, look, newId, standingStill } = Causal

const secrets = [Redacted.make("the key that all processes share")]
const keys = Either.getOrThrow(Token.keys(secrets))

const options = { consistency: Consistency.causal(), tokens: { keys: secrets } }

const name = "db-router-token"

/** `read` answers whether a row is there, and which engine said so. */
const act: Act = (what, id) =>
  Effect.gen(function* () {
    if (what === "write") yield* insert(Number(id))
    if (what === "collides") yield* Effect.flip(insert(Number(id))).pipe(Effect.orDie)
    if (what === "primary") yield* DbRouter.primary(look(Number(id)))
    if (what === "collides") return HttpServerResponse.empty({ status: 409 })
    if (what === "refused") {
      yield* insert(Number(id))
      return HttpServerResponse.empty({ status: 409 })
    }
    return what === "read" ? HttpServerResponse.unsafeJson(yield* look(Number(id))) : HttpServerResponse.empty()
  }).pipe(Effect.catchTag("SqlError", Effect.die))

const request = (send: Send, what: string, id: number, sent: Sent = {}) =>
  Effect.promise(() => send(`/act/${what}/${id}`, sent))

const cookieOf = ({ headers }: Answer) => Cookies.get(Cookies.fromSetCookie(headers.getSetCookie()), name)

const tokenOf = (answer: Answer): string => Option.getOrThrow(cookieOf(answer)).value

const withCookie = (token: string): Sent => ({ headers: { cookie: `a=b; ${name}=${token}` } })

const read = (send: Send, id: number, sent: Sent = {}) =>
  Effect.map(request(send, "read", id, { ...sent, method: "GET" }), (answer) => {
    assert.strictEqual(answer.status, 200)
    const [found, engine] = JSON.parse(answer.body) as [boolean, string]
    return { found, onPrimary: engine === "primary", answer }
  })

const seen = { found: true, onPrimary: true }
const old = { found: false, onPrimary: false }

const result = ({ found, onPrimary }: { readonly found: boolean; readonly onPrimary: boolean }) => ({
  found,
  onPrimary
})

const rejected = (reason: string) =>
  Effect.map(
    Metric.value(Metric.tagged(Telemetry.rejectedTokens, Telemetry.attributes.errorType, reason)),
    ({ count }) => count
  )

/** The services of another process: a router with a state of its own, and the same keys. */
const otherProcess = Effect.flatMap(PgCluster.PgCluster, (cluster) =>
  Layer.build(RouterTest.router(options)).pipe(
    Effect.provideService(PgCluster.PgCluster, cluster),
    Effect.map((context) => context as Context.Context<Services>)
  )
)

/** An app in two processes. */
const twice = (placement: (typeof placements)[string], app: Act, given: HttpSession.Options) =>
  Effect.gen(function* () {
    const here = yield* placement(app, given)
    const there = yield* Effect.provide(placement(app, given), yield* otherProcess)
    return { here, there }
  })

const placed = placements["HttpServer.serve"]!

const TestLayer = Layer.provideMerge(quiet, Causal.layer(options))

/** Reads what is there until a replica answers. */
const onReplica = <A extends { readonly found: boolean; readonly onPrimary: boolean }, E, R>(
  look: Effect.Effect<A, E, R>
) =>
  engines.eventually(
    Effect.tap(look, ({ found }) => assert.isTrue(found)),
    ({ onPrimary }) => !onPrimary
  )

layer(TestLayer, { excludeTestServices: true, timeout: "2 minutes" })("a token", (it) => {
  for (const [where, placement] of Object.entries(placements)) {
    it.scoped(`in a cookie shows the next request, in another process, the write of this one: ${where}`, () =>
      Effect.gen(function* () {
        const { here, there } = yield* twice(placement, act, { token: HttpSession.tokenCookie() })
        yield* standingStill(
          Effect.gen(function* () {
            const id = yield* newId
            const token = tokenOf(yield* request(here, "write", id))
            const again = yield* read(there, id, withCookie(token))
            assert.deepStrictEqual(result(again), seen)
            assert.deepStrictEqual(result(yield* read(there, id)), old)
            assert.deepStrictEqual(result(yield* read(here, id)), old)
            // What it brings is what it would take along.
            assert.isTrue(Option.isNone(cookieOf(yield* request(there, "nothing", id, withCookie(token)))))
          })
        )
        const id = yield* newId
        const token = tokenOf(yield* request(here, "write", id))
        yield* Effect.flatMap(PgCluster.PgCluster, (cluster) => cluster.awaitReplayed)
        // On a busy machine it takes a while until the router knows what its replicas have.
        yield* onReplica(read(there, id, withCookie(token)))
      })
    )
  }

  it.scoped(
    "is in a cookie that scripts and plain HTTP do not see, for as long as it is good; or as the options say",
    () =>
      Effect.gen(function* () {
        const plain = yield* placed(act, { token: HttpSession.tokenCookie() })
        const { options: attributes, value } = Option.getOrThrow(cookieOf(yield* request(plain, "write", yield* newId)))
        assert.match(value, /^[\w-]{80}$/)
        const maxAge = attributes?.maxAge
        assert.deepStrictEqual(
          { ...attributes, maxAge: undefined },
          { httpOnly: true, secure: true, sameSite: "lax", path: "/", maxAge: undefined }
        )
        assert.deepStrictEqual(String(maxAge), "Duration(1m)")
        const other = yield* placed(act, {
          token: HttpSession.tokenCookie({
            name: "p",
            secure: false,
            sameSite: "strict",
            path: "/act",
            domain: "localhost"
          })
        })
        const [header] = (yield* request(other, "write", yield* newId)).headers.getSetCookie()
        assert.match(header!, /^p=[\w-]{80}; Max-Age=60; Domain=localhost; Path=\/act; HttpOnly; SameSite=Strict$/)
      })
  )

  it.scoped("is in a pair of headers", () =>
    Effect.gen(function* () {
      const cases = [
        [undefined, name, name],
        [{ request: "Position" }, "position", "position"],
        [{ request: "x-has", response: "X-Gets" }, "x-has", "x-gets"]
      ] as const
      for (const [given, asked, answered] of cases) {
        const { here, there } = yield* twice(placed, act, { token: HttpSession.tokenHeader(given) })
        yield* standingStill(
          Effect.gen(function* () {
            const id = yield* newId
            const answer = yield* request(here, "write", id)
            const token = answer.headers.get(answered)!
            assert.deepStrictEqual(answer.headers.getSetCookie(), [])
            assert.deepStrictEqual(result(yield* read(there, id, { headers: { [asked]: token } })), seen)
            assert.deepStrictEqual(result(yield* read(there, id)), old)
          })
        )
      }
    })
  )

  it.scoped("is in all that are given, and the furthest of what a request brings counts", () =>
    Effect.gen(function* () {
      const token = [HttpSession.tokenCookie(), HttpSession.tokenHeader()]
      const { here, there } = yield* twice(placed, act, { token })
      yield* standingStill(
        Effect.gen(function* () {
          const first = tokenOf(yield* request(here, "write", yield* newId))
          const id = yield* newId
          const answer = yield* request(here, "write", id)
          assert.strictEqual(answer.headers.get(name), tokenOf(answer))
          for (const [cookie, header] of [
            [first, tokenOf(answer)],
            [tokenOf(answer), first],
            [tokenOf(answer), "nonsense"]
          ]) {
            const sent = { headers: { ...withCookie(cookie!).headers, [name]: header! } }
            assert.deepStrictEqual(result(yield* read(there, id, sent)), seen)
          }
        })
      )
    })
  )

  it.scoped("is found behind others of its name, which another site of the domain may have set", () =>
    Effect.gen(function* () {
      const token = [HttpSession.tokenCookie(), HttpSession.tokenHeader()]
      const { here, there } = yield* twice(placed, act, { token })
      yield* standingStill(
        Effect.gen(function* () {
          const first = tokenOf(yield* request(here, "write", yield* newId))
          const id = yield* newId
          const good = tokenOf(yield* request(here, "write", id))
          for (const [texts, expected] of [
            [["nonsense", good], seen],
            [["", good], seen],
            [[first, good], seen],
            [[good, first], seen],
            [["1", "2", "3", good], seen],
            // Not looked at: any number of them would be work for nothing.
            [["1", "2", "3", "4", good], old]
          ] as const) {
            const cookie = texts.map((text) => `${name}=${text}`).join("; ")
            assert.deepStrictEqual(result(yield* read(there, id, { headers: { cookie } })), expected, cookie)
            const header = { [name]: texts.join(", ") }
            assert.deepStrictEqual(result(yield* read(there, id, { headers: header })), expected, header[name])
          }
        })
      )
    })
  )

  it.scoped("is on no response of a request that has not come further, and never without the option", () =>
    Effect.gen(function* () {
      yield* RouterTest.settle
      const id = yield* newId
      const send = yield* placed(act, { token: HttpSession.tokenCookie({ reads: true }) })
      assert.isTrue(Option.isNone(cookieOf(yield* request(send, "nothing", id))))
      const written = tokenOf(yield* request(send, "write", id))
      assert.isTrue(Option.isNone(cookieOf(yield* request(send, "nothing", id, withCookie(written)))))
      yield* Effect.flatMap(PgCluster.PgCluster, (cluster) => cluster.awaitReplayed)
      // It has read: the next one may not go back.
      const { answer } = yield* read(send, id)
      const reading = tokenOf(answer)
      assert.isTrue(Option.isNone(cookieOf((yield* read(send, id, withCookie(reading))).answer)))
      const without = yield* placed(act)
      assert.isTrue(Option.isNone(cookieOf(yield* request(without, "write", yield* newId))))
      const refused = yield* request(send, "refused", yield* newId, withCookie(reading))
      assert.strictEqual(refused.status, 409)
    })
  )

  it.scoped("in a cookie is for writes, and for what the primary has shown, not for reads on replicas", () =>
    Effect.gen(function* () {
      const send = yield* placed(act, { token: HttpSession.tokenCookie() })
      yield* RouterTest.settle
      const id = yield* newId
      assert.isTrue(Option.isSome(cookieOf(yield* request(send, "write", id))))
      yield* Effect.flatMap(PgCluster.PgCluster, (cluster) => cluster.awaitReplayed)
      const { answer } = yield* onReplica(read(send, id))
      assert.deepStrictEqual(cookieOf(answer), Option.none())
      // It was shown that its row collides, or would: the next request may have to look why.
      assert.isTrue(Option.isSome(cookieOf(yield* request(send, "refused", yield* newId))))
      assert.isTrue(Option.isSome(cookieOf(yield* request(send, "collides", id))))
      const forced = yield* request(send, "primary", id)
      assert.isTrue(Option.isSome(cookieOf(forced)))
    })
  )

  it.scoped("is on no response that shared caches may keep", () =>
    Effect.gen(function* () {
      const kept: ReadonlyArray<readonly [headers: Record<string, string>, isKept: boolean]> = [
        [{}, false],
        [{ "cache-control": "private, max-age=60" }, false],
        [{ "cache-control": "no-store" }, false],
        [{ "cache-control": "max-age=0, must-revalidate" }, false],
        [{ "cache-control": "public" }, true],
        [{ "cache-control": "Public, Max-Age=60" }, true],
        [{ "cache-control": "s-maxage=10" }, true],
        [{ "cache-control": "max-age=60" }, true],
        [{ "cache-control": "s-maxage=0" }, false],
        [{ "cdn-cache-control": "max-age=60" }, true],
        [{ "surrogate-control": "max-age=60" }, true],
        [{ "cache-control": 'max-age=60, private="x-foo"' }, true],
        [{ "cache-control": 'max-age=60, private="set-cookie, x-foo", no-store' }, false],
        [{ "cache-control": 'max-age=60, ext="a, private, b"' }, true],
        [{ "cache-control": 'max-age=60, ext="a \\", private, b", x' }, true],
        [{ "cache-control": 'ext="public, max-age=60"' }, false],
        [{ "cache-control": 'private, ext="public' }, false],
        [{ "vercel-cdn-cache-control": "max-age=60" }, true],
        [{ "cloudflare-cdn-cache-control": "max-age=60", "cache-control": "private" }, true],
        [{ "netlify-cdn-cache-control": "public, durable, s-maxage=60" }, true],
        [{ "vercel-cdn-cache-control": "private, max-age=60" }, false],
        [{ expires: "Wed, 21 Oct 2065 07:28:00 GMT" }, true],
        [{ expires: "0" }, false]
      ]
      for (const carrier of [HttpSession.tokenCookie(), HttpSession.tokenHeader()]) {
        for (const [headers, isKept] of kept) {
          const app: Act = (what, id) => Effect.map(act(what, id), HttpServerResponse.setHeaders(headers))
          const send = yield* placed(app, { token: carrier })
          const answer = yield* request(send, "write", yield* newId)
          const hasToken = Option.isSome(cookieOf(answer)) || answer.headers.has(name)
          assert.strictEqual(hasToken, !isKept, JSON.stringify(headers))
        }
      }
    })
  )

  it.scoped("is there for requests that are skipped too", () =>
    Effect.gen(function* () {
      const { here, there } = yield* twice(placed, act, { token: HttpSession.tokenCookie(), skip: () => true })
      yield* standingStill(
        Effect.gen(function* () {
          const id = yield* newId
          const token = tokenOf(yield* request(here, "write", id))
          assert.deepStrictEqual(result(yield* read(there, id, withCookie(token))), seen)
          assert.deepStrictEqual(result(yield* read(there, id)), old)
        })
      )
    })
  )

  it.scoped(
    "of before a promotion makes requests read from the primary until it expires, or gives way to a new one",
    () =>
      Effect.gen(function* () {
        const { here, there } = yield* twice(placed, act, { token: HttpSession.tokenCookie() })
        yield* standingStill(
          Effect.gen(function* () {
            const id = yield* newId
            const { position } = Either.getOrThrow(Token.decode(keys, tokenOf(yield* request(here, "write", id)), 0))
            const before = (millis: number) =>
              Effect.clockWith((clock) =>
                Effect.map(clock.currentTimeMillis, (now) =>
                  withCookie(Token.encode(keys, { ...position, timeline: 0 }, { expiresAt: now + millis }))
                )
              )
            const { answer, ...first } = yield* read(there, id, yield* before(10_000))
            assert.deepStrictEqual(first, seen)
            const { position: next } = Either.getOrThrow(Token.decode(keys, tokenOf(answer), 0))
            assert.strictEqual(next.timeline, position.timeline)
            assert.deepStrictEqual(result(yield* read(there, id, yield* before(0))), old)
          })
        )
      })
  )

  it.scoped("that is not to be believed: a flood of them is answered by the replicas, and counted", () =>
    Effect.gen(function* () {
      const { here, there } = yield* twice(placed, act, { token: HttpSession.tokenCookie() })
      yield* standingStill(
        Effect.gen(function* () {
          const id = yield* newId
          const token = tokenOf(yield* request(here, "write", id))
          const { position } = Either.getOrThrow(Token.decode(keys, token, 0))
          const signed = (other: Partial<Position.Position>, expiresAt = 2 ** 47) =>
            Token.encode(keys, { ...position, ...other }, { expiresAt })
          const bad: ReadonlyArray<readonly [Token.Rejection, string]> = [
            ["tooLong", "x".repeat(10_000)],
            ["malformed", token.slice(0, 60)],
            ["malformed", "%00%ff%0d%0aset-cookie:a=b"],
            ["malformed", "%E0%A4%A"],
            ["malformed", "\xff\x80\xa0"],
            ["version", `C${token.slice(1)}`],
            ["signature", token.slice(0, 40) + token.slice(0, 40)],
            ["expired", signed({}, 1)],
            ["impossible", signed({ lsn: 2n ** 63n })],
            ["impossible", signed({ timeline: 2 ** 31 })],
            ["impossible", signed({ system: "5" })]
          ]
          const reasons = [...new Set(bad.map(([reason]) => reason))]
          const before = yield* Effect.forEach(reasons, rejected)
          const rounds = 30
          const results = yield* Effect.forEach(
            Array.from({ length: rounds }, () => bad).flat(),
            ([, text]) => Effect.map(read(there, id, withCookie(text)), result),
            { concurrency: 16 }
          )
          assert.deepStrictEqual(
            results.filter(({ found, onPrimary }) => found || onPrimary),
            []
          )
          const after = yield* Effect.forEach(reasons, rejected)
          assert.deepStrictEqual(
            after.map((count, i) => count - before[i]!),
            reasons.map((reason) => rounds * bad.filter(([other]) => other === reason).length)
          )
          assert.deepStrictEqual(result(yield* read(there, id, withCookie(token))), seen)
        })
      )
    })
  )
})
