import { Reactivity } from "@effect/experimental"
import * as NodeContext from "@effect/platform-node/NodeContext"
import { Model, SqlClient, SqlResolver } from "@effect/sql"
import { PgMigrator } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Context, Deferred, Effect, type Exit, Fiber, Layer, ManagedRuntime, Schema, Stream } from "effect"
import { Consistency, DbRouter, RoutingContext } from "effect-db-router"
import * as Causal from "../support/causal.js"
import * as RouterTest from "../support/router.js"

const { insert, newId, Notes, sees, standingStill } = Causal

/** The group that a read goes to. */
const readsFrom = Effect.flatMap(DbRouter.DbRouter, (router) =>
  Effect.map(router.explain("SELECT id FROM note"), ({ group }) => group)
)

const Live = Causal.layer()

class Note extends Model.Class<Note>("Note")({ id: Schema.Number, text: Schema.NullOr(Schema.String) }) {}

const makeResolvers = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const Insert = yield* SqlResolver.ordered("InsertNote", {
    Request: Schema.Struct({ id: Schema.Number }),
    Result: Schema.Struct({ id: Schema.Number }),
    execute: (requests) => sql`INSERT INTO note ${sql.insert(requests)} RETURNING id`
  })
  const ById = yield* SqlResolver.findById("NoteById", {
    Id: Schema.Number,
    Result: Schema.Struct({ id: Schema.Number }),
    ResultId: ({ id }) => id,
    execute: (ids) => sql`SELECT id FROM note WHERE ${sql.in("id", ids)}`
  })
  const found = (id: number) => Effect.map(ById.execute(id), (note) => note._tag === "Some")
  return { insert: (id: number) => Insert.execute({ id }), found }
})

class Seen extends Context.Tag("test/Seen")<
  Seen,
  { readonly before: string; readonly after: string; readonly found: boolean; readonly id: number }
>() {}

const migrations = {
  autocommit: (id: number) => insert(id),
  "a transaction": (id: number) => Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(insert(id))),
  "a session": (id: number) => DbRouter.session(insert(id)),
  "several fibers": (id: number) =>
    Effect.zipRight(
      Effect.forEach([1, 2], () => Effect.flatMap(newId, insert), { concurrency: 2 }),
      insert(id)
    )
}

layer(Live, { excludeTestServices: true, timeout: "2 minutes" })("the routing context over real servers", (it) => {
  const still = <E, R extends RouterTest.Services>(name: string, effect: Effect.Effect<unknown, E, R>) =>
    it.effect(name, () => standingStill(effect))

  still(
    "a write of a resolver sticks to the flow that asked for it, and reads of resolvers do not",
    Effect.gen(function* () {
      const { found, insert } = yield* makeResolvers
      const id = yield* newId
      assert.isFalse(yield* found(id))
      assert.strictEqual(yield* readsFrom, "read")
      yield* insert(id)
      assert.isTrue(yield* sees(id))
      assert.isTrue(yield* found(id))
      yield* DbRouter.reset
      assert.isFalse(yield* found(id))
    })
  )

  for (const concurrency of [1, 3, "unbounded"] as const) {
    still(
      `in a batch everyone reads what they wrote as soon as they have the answer, concurrency ${concurrency}`,
      Effect.gen(function* () {
        const { found, insert } = yield* makeResolvers
        const ids = yield* Effect.all([newId, newId, newId])
        const [read, statements] = yield* RouterTest.traced(
          Effect.forEach(ids, (id) => Effect.zipRight(insert(id), sees(id)), { batching: true, concurrency })
        )
        assert.deepStrictEqual(read, [true, true, true])
        assert.deepStrictEqual(
          statements.map(({ kind }) => kind),
          ["write", "read", "read", "read"]
        )
        assert.strictEqual(yield* readsFrom, "default")
        assert.deepStrictEqual(yield* Effect.forEach(ids, found, { batching: true }), [true, true, true])
      })
    )
  }

  still(
    "limit outside a session: a batch knows what its operator's flow has written, not what the requests' own fibers have",
    Effect.gen(function* () {
      const { found, insert } = yield* makeResolvers
      const ids = yield* Effect.all([newId, newId, newId])
      const both = Effect.forEach(ids, (id) => Effect.zipRight(insert(id), found(id)), { batching: true })
      assert.deepStrictEqual(yield* both, [false, false, false])
      yield* DbRouter.primary(Effect.flatMap(SqlClient.SqlClient, (sql) => sql`DELETE FROM note`))
      yield* DbRouter.reset
      assert.deepStrictEqual(yield* DbRouter.session(both), [true, true, true])
    })
  )

  const groupsOf = (effect: Effect.Effect<unknown, unknown>) =>
    Effect.map(RouterTest.traced(effect), ([, statements]) => statements.map(({ group }) => group))

  still(
    "a bind group holds around the operator that batches, around a request by itself, and not after it",
    Effect.gen(function* () {
      const { found } = yield* makeResolvers
      const batch = Effect.forEach([1, 2], found, { batching: true })
      assert.deepStrictEqual(yield* groupsOf(DbRouter.bindGroup(batch, "archive")), ["archive"])
      assert.deepStrictEqual(yield* groupsOf(DbRouter.bindGroup(found(1), "archive")), ["archive"])
      assert.deepStrictEqual(yield* groupsOf(DbRouter.primary(found(1))), ["default"])
      assert.deepStrictEqual(yield* groupsOf(batch), ["read"])
      yield* RoutingContext.setStickyPrimary
      assert.deepStrictEqual(yield* groupsOf(batch), ["default"])
      assert.deepStrictEqual(yield* groupsOf(DbRouter.replica(batch)), ["read"])
    })
  )

  still(
    "limit: a bind group around one request of a batch is lost",
    Effect.gen(function* () {
      const { found } = yield* makeResolvers
      const both = Effect.all([DbRouter.bindGroup(found(1), "archive"), found(2)], { batching: true })
      assert.deepStrictEqual(yield* groupsOf(both), ["read"])
    })
  )

  still(
    "Model.makeRepository and Model.makeDataLoaders: what they write with statements sticks",
    Effect.gen(function* () {
      const repository = yield* Model.makeRepository(Note, { tableName: "note", spanPrefix: "Note", idColumn: "id" })
      const id = yield* newId
      yield* repository.insert({ id, text: "new" })
      assert.strictEqual((yield* repository.findById(id))._tag, "Some")
      yield* DbRouter.reset
      assert.strictEqual((yield* repository.findById(id))._tag, "None")
    })
  )

  for (const [how, write] of Object.entries(migrations)) {
    const Migrations = Layer.effect(
      Seen,
      Effect.gen(function* () {
        const id = yield* newId
        const before = yield* readsFrom
        yield* write(id)
        const after = yield* readsFrom
        return { before, after, found: yield* DbRouter.primary(sees(id)), id }
      })
    )

    it.effect(`a layer that writes in ${how} does not leave the program on the primary`, () =>
      Effect.gen(function* () {
        const Router = RouterTest.router({ consistency: Consistency.sticky({ resetOnCommit: false }) })
        const App = Migrations.pipe(Layer.provideMerge(Notes), Layer.provideMerge(Router))
        const program = Effect.gen(function* () {
          const { after, before, found, id } = yield* Seen
          assert.deepStrictEqual([before, after, found], ["read", "default", true])
          assert.strictEqual(yield* readsFrom, "read")
          yield* insert(id + 1_000_000)
          assert.strictEqual(yield* readsFrom, "default")
          assert.isTrue(yield* sees(id + 1_000_000))
          yield* DbRouter.reset
        })
        yield* Effect.provide(program, App)
        yield* Effect.provide(program, Layer.merge(App, Layer.provide(Notes, Router)))
        const cluster = yield* Effect.context<RouterTest.PgCluster.PgCluster>()
        const runtime = ManagedRuntime.make(Layer.provide(App, Layer.succeedContext(cluster)))
        yield* Effect.promise(() => runtime.runPromise(program))
        yield* Effect.promise(() =>
          runtime.runPromise(Effect.flatMap(readsFrom, (group) => Effect.sync(() => assert.strictEqual(group, "read"))))
        )
        yield* runtime.disposeEffect
        const launched = yield* Deferred.make<Exit.Exit<void, unknown>>()
        const Main = Layer.scopedDiscard(
          Effect.forkScoped(Effect.flatMap(Effect.exit(program), (exit) => Deferred.succeed(launched, exit)))
        )
        const server = yield* Effect.fork(Layer.launch(Layer.provide(Main, App)))
        yield* Effect.flatten(Deferred.await(launched))
        yield* Fiber.interrupt(server)
      })
    )
  }

  it.effect("the same with DbRouter.make in a layer of one's own", () =>
    Effect.gen(function* () {
      const cluster = yield* RouterTest.PgCluster.PgCluster
      const Own = Layer.scopedContext(
        Effect.map(DbRouter.make(RouterTest.optionsFor(cluster)), (router) =>
          Context.make(DbRouter.DbRouter, router).pipe(Context.add(SqlClient.SqlClient, router.client))
        )
      ).pipe(Layer.provide(Reactivity.layer))
      const Writing = Layer.effectDiscard(Effect.flatMap(newId, insert))
      assert.strictEqual(yield* Effect.provide(readsFrom, Layer.provideMerge(Writing, Own)), "read")
    })
  )

  it.effect("PgMigrator as a layer above the router", () =>
    Effect.gen(function* () {
      const Migrator = PgMigrator.layer({
        loader: PgMigrator.fromRecord({
          "0001_things": Effect.flatMap(SqlClient.SqlClient, (sql) => sql`CREATE TABLE thing (id int)`)
        }),
        table: "migrations_of_a_test"
      })
      const App = Migrator.pipe(Layer.provideMerge(RouterTest.router()), Layer.provide(NodeContext.layer))
      assert.strictEqual(yield* Effect.provide(readsFrom, App), "read")
    })
  )

  it.effect("a repository that keeps the context of its layer writes for the flow that calls it", () =>
    Effect.gen(function* () {
      class Notebook extends Context.Tag("test/Notebook")<
        Notebook,
        { readonly add: (id: number) => Effect.Effect<unknown, unknown> }
      >() {}
      const NotebookLive = Layer.effect(
        Notebook,
        Effect.map(Effect.context<SqlClient.SqlClient>(), (context) => ({
          add: (id) => Effect.provide(insert(id), context)
        }))
      )
      const App = NotebookLive.pipe(Layer.provideMerge(Notes), Layer.provideMerge(RouterTest.router()))
      yield* standingStill(
        Effect.gen(function* () {
          const id = yield* newId
          assert.strictEqual(yield* readsFrom, "read")
          yield* Effect.flatMap(Notebook, (notebook) => notebook.add(id))
          assert.isTrue(yield* sees(id))
        })
      ).pipe(Effect.provide(App))
    })
  )

  it.effect("a stream's combinator is for its own statements, not for those downstream or upstream of it", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* RouterTest.settle
      const rows = sql`SELECT generate_series(1, 3) AS n /* rows */`.stream
      const below = Effect.asVoid(sql`SELECT 1 /* below */`)
      const engines = (stream: Stream.Stream<unknown, unknown, never>) =>
        Effect.map(RouterTest.traced(Stream.runDrain(stream)), ([, statements]) =>
          [...new Set(statements.map(({ group, sql }) => `${group} ${sql.match(/[/][*] (.*) [*][/]/)?.[1]}`))].sort()
        )
      const inArchive = DbRouter.stream.bindGroup(rows, "archive")
      assert.deepStrictEqual(yield* engines(Stream.tap(inArchive, () => below)), ["archive rows", "read below"])
      assert.deepStrictEqual(yield* engines(Stream.mapEffect(inArchive, () => below, { concurrency: 2 })), [
        "archive rows",
        "read below"
      ])
      const above = Stream.mapEffect(Stream.range(1, 2), () => below)
      assert.deepStrictEqual(yield* engines(Stream.flatMap(above, () => DbRouter.stream.primary(rows))), [
        "default rows",
        "read below"
      ])
      assert.deepStrictEqual(yield* engines(DbRouter.stream.primary(Stream.flatMap(above, () => rows))), [
        "default below",
        "default rows"
      ])
      yield* RoutingContext.setStickyPrimary
      assert.deepStrictEqual(yield* engines(Stream.tap(DbRouter.stream.replica(rows), () => below)), [
        "default below",
        "read rows"
      ])
      const broadcast = Stream.broadcast(inArchive, 2, 4).pipe(
        Effect.map((streams) => Stream.mergeAll(streams.map(Stream.tap(() => below)), { concurrency: 2 })),
        Stream.unwrapScoped
      )
      yield* DbRouter.reset
      assert.deepStrictEqual(yield* engines(broadcast), ["archive rows", "read below"])
      assert.deepStrictEqual(yield* engines(Stream.merge(inArchive, rows)), ["archive rows", "read rows"])
    })
  )

  it.effect("a write in a pull sticks to the consumer from there on", () =>
    standingStill(
      Effect.gen(function* () {
        const ids = yield* Effect.all([newId, newId])
        const written = DbRouter.stream.replica(
          Stream.mapEffect(Stream.fromIterable(ids).pipe(Stream.rechunk(1)), (id) => Effect.as(insert(id), id))
        )
        const found = yield* Stream.runCollect(Stream.mapEffect(written, sees))
        assert.deepStrictEqual([...found], [true, true])
        assert.strictEqual(yield* readsFrom, "default")
      })
    )
  )
})
