import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, Redacted } from "effect"
import { DbRouter, type RouterConfig } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as engines from "../support/engine.js"
import * as Failures from "../support/failures.js"

type Engine = Effect.Effect.Success<ReturnType<typeof engines.make>>

const one = (options?: engines.Options) =>
  Effect.flatMap(PgCluster.PgCluster, ({ primary }) => engines.on(primary, { maxConnections: 1, ...options }))

const plain = (on: Pick<Engine, "query">, sql: string) => on.query(engines.statement(sql, [], false))

/** How often a text has run under its name since it was prepared on the connection, with a plan for all values and for its own. */
const plansOf = (on: Pick<Engine, "query">, sql: string) =>
  Effect.map(
    on.query(
      engines.statement(
        "select generic_plans::int as generic, custom_plans::int as custom from pg_prepared_statements where statement = $1",
        [sql],
        false
      )
    ),
    (result) => (result as { rows: Array<{ generic: number; custom: number }> }).rows[0] ?? { generic: 0, custom: 0 }
  )

const modes: ReadonlyArray<readonly [RouterConfig.PlanCacheMode | undefined, { generic: number; custom: number }]> = [
  [undefined, { generic: 6, custom: 5 }],
  ["auto", { generic: 6, custom: 5 }],
  ["force_custom_plan", { generic: 0, custom: 11 }],
  ["force_generic_plan", { generic: 11, custom: 0 }]
]

engines.refuseWarnings()

layer(PgCluster.layer({ replicas: 0 }), { excludeTestServices: true })("the plans of prepared statements", (it) => {
  for (const [planCacheMode, expected] of modes) {
    it.scoped(`are as ${planCacheMode ?? "the server"} says, also after the connection was reset`, () =>
      Effect.gen(function* () {
        const on = yield* one(planCacheMode === undefined ? {} : { planCacheMode })
        const mode = planCacheMode ?? "auto"
        const sql = "select $1::int as n"
        for (let i = 0; i < 12; i++) yield* on.query(engines.statement(sql, [i]))
        assert.deepStrictEqual(yield* plansOf(on, sql), expected)
        assert.strictEqual(yield* engines.value(on, "show plan_cache_mode"), mode)
        yield* plain(on, "set plan_cache_mode = force_generic_plan")
        yield* plain(on, "discard all")
        assert.strictEqual(yield* engines.value(on, "show plan_cache_mode"), mode)
      }).pipe(engines.timeless)
    )
  }

  it.scoped("are as an address says that names a mode of its own, and else as the role has it", () =>
    Effect.gen(function* () {
      const { primary } = yield* PgCluster.PgCluster
      const at = (options?: string) => {
        const url = new URL(Redacted.value(primary.url))
        if (options !== undefined) url.searchParams.set("options", options)
        return Redacted.make(url.href)
      }
      const mode = (options: engines.Options) =>
        Effect.flatMap(one(options), (on) => engines.value(on, "show plan_cache_mode"))
      const own = at("-c plan_cache_mode=force_custom_plan")
      assert.strictEqual(yield* mode({ url: own, planCacheMode: "force_generic_plan" }), "force_custom_plan")
      const other = at("-c statement_timeout=7s")
      assert.strictEqual(yield* mode({ url: other, planCacheMode: "force_generic_plan" }), "force_generic_plan")
      const timeout = Effect.flatMap(one({ url: other, planCacheMode: "auto" }), (on) =>
        engines.value(on, "show statement_timeout")
      )
      assert.strictEqual(yield* timeout, "7s")
      yield* primary.query(
        "create role planner login password 'planner'; alter role planner set plan_cache_mode = force_custom_plan"
      )
      const url = new URL(Redacted.value(primary.url))
      url.username = "planner"
      url.password = "planner"
      assert.strictEqual(yield* mode({ url: Redacted.make(url.href) }), "force_custom_plan")
    })
  )

  it.scoped("are those of a unit of work that sets plan_cache_mode for itself", () =>
    Effect.gen(function* () {
      const { primary } = yield* PgCluster.PgCluster
      const router = DbRouter.layer({ groups: { default: [{ url: primary.url, maxConnections: 1 }] } })
      yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const run = Effect.replicateEffect(sql`select 7 + ${1}::int as n`, 12)
        const counts = sql<{ generic: number; custom: number }>`
          select generic_plans::int as generic, custom_plans::int as custom from pg_prepared_statements
          where statement like 'select 7 +%'`
        const settings = { plan_cache_mode: "force_custom_plan" }
        assert.deepStrictEqual(yield* DbRouter.session(Effect.zipRight(run, counts), { settings }), [
          { generic: 0, custom: 11 }
        ])
        // A text is named from its second use on, in the process.
        assert.deepStrictEqual(yield* DbRouter.session(Effect.zipRight(run, counts)), [{ generic: 12, custom: 11 }])
      }).pipe(Effect.provide(router), Effect.scoped)
    }).pipe(engines.timeless)
  )

  const sql = "select $1::int + 1 as next"

  /** Runs the text for so many milliseconds of the clock. */
  const runFor = (on: Engine, millis: number, advance: (millis: number) => void) =>
    Effect.gen(function* () {
      const fiber = yield* Effect.fork(on.query(engines.statement(sql, [7])))
      yield* Effect.yieldNow()
      assert.strictEqual(on.inFlight, 1)
      advance(millis)
      yield* Fiber.join(fiber)
    })

  const countOf = (on: Engine) => Effect.map(plansOf(on, sql), ({ custom, generic }) => custom + generic)

  it.scoped("are its own for a minute for a text that was slow under its name, and fast without, three times", () =>
    engines.stepped((advance) =>
      Effect.gen(function* () {
        const on = yield* one()
        yield* plain(on, "select 1")
        const run = (millis: number) => runFor(on, millis, advance)
        yield* run(1)
        yield* run(1)
        assert.strictEqual(yield* countOf(on), 1)
        for (let i = 0; i < 3; i++) {
          yield* run(90)
          const named = yield* countOf(on)
          // This one is without a name, to see how long it takes.
          yield* run(1)
          assert.strictEqual(yield* countOf(on), named)
        }
        for (let i = 0; i < 5; i++) yield* run(1)
        assert.strictEqual(yield* countOf(on), 4)
        advance(60_000)
        for (let i = 0; i < 5; i++) yield* run(1)
        assert.strictEqual(yield* countOf(on), 5)
      })
    )
  )

  it.scoped("stay the server's for a text that is as slow without its name, whatever values strangers send", () =>
    engines.stepped((advance) =>
      Effect.gen(function* () {
        const on = yield* one()
        yield* plain(on, "select 1")
        const run = (millis: number) => runFor(on, millis, advance)
        yield* run(1)
        yield* run(1)
        for (let i = 0; i < 8; i++) yield* run(90)
        const named = yield* countOf(on)
        assert.strictEqual(named, 5)
        for (let i = 0; i < 5; i++) yield* run(1)
        assert.strictEqual(yield* countOf(on), named + 5)
      })
    )
  )

  it.scoped("for a rare value cost a few slow runs, not all of them", () =>
    Effect.gen(function* () {
      const { primary } = yield* PgCluster.PgCluster
      yield* primary.query(`
        create table job (id serial primary key, status text, pad text);
        insert into job (status, pad)
          select case when i > 199990 then 'new' else 'done' end, repeat('x', 60) from generate_series(1, 200000) i;
        create index on job (status)`)
      yield* primary.query("vacuum analyze job")
      const sql = "select id, pad from job where status = $1 order by id limit 20"
      const values = [...Array.from({ length: 8 }, () => "done"), ...Array.from({ length: 30 }, () => "new")]
      const timed = <E, R>(run: (value: string) => Effect.Effect<unknown, E, R>) =>
        Effect.gen(function* () {
          const times: Array<number> = []
          for (const value of values) {
            const began = performance.now()
            yield* run(value)
            times.push(performance.now() - began)
          }
          return times.slice(8).reduce((sum, time) => sum + time, 0)
        })
      const client = yield* Failures.client(primary)
      const slow = yield* timed((value) =>
        Effect.promise(() => client.query({ name: "job", text: sql, values: [value] }))
      )
      const on = yield* one()
      const routed = yield* timed((value) => on.query(engines.statement(sql, [value])))
      const custom = yield* one({ planCacheMode: "force_custom_plan" })
      const planned = yield* timed((value) => custom.query(engines.statement(sql, [value])))
      assert.isBelow(routed, slow / 2)
      assert.isBelow(planned, slow / 4)
    })
  )
})
