import { Model, SqlClient, SqlResolver, SqlSchema } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Either, Option, Schema } from "effect"
import { DbRouter } from "effect-db-router"
import * as RouterTest from "../support/router.js"

const Person = Schema.Struct({ id: Schema.Number, name: Schema.String })

const setUp = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE IF NOT EXISTS person (id serial PRIMARY KEY, name text NOT NULL)`
  yield* sql`CREATE TABLE IF NOT EXISTS pet (id serial, owner int, name text)`
  yield* sql`TRUNCATE person, pet RESTART IDENTITY`
  yield* sql`INSERT INTO person ${sql.insert([{ name: "ada" }, { name: "bob" }, { name: "cy" }])}`
  yield* sql`INSERT INTO pet ${sql.insert([
    { owner: 1, name: "rex" },
    { owner: 1, name: "tom" },
    { owner: 3, name: "kit" }
  ])}`
  yield* RouterTest.settle
  return sql
})

/** All four kinds. */
const resolvers = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const Insert = yield* SqlResolver.ordered("InsertPerson", {
    Request: Schema.Struct({ name: Schema.String }),
    Result: Person,
    execute: (requests) => sql`INSERT INTO person ${sql.insert(requests)} RETURNING *`
  })
  const ById = yield* SqlResolver.findById("PersonById", {
    Id: Schema.Number,
    Result: Person,
    ResultId: (person) => person.id,
    execute: (ids) => sql`SELECT * FROM person WHERE ${sql.in("id", ids)}`
  })
  const PetsOf = yield* SqlResolver.grouped("PetsOf", {
    Request: Schema.Number,
    RequestGroupKey: (owner) => owner,
    Result: Schema.Struct({ owner: Schema.Number, name: Schema.String }),
    ResultGroupKey: (pet) => pet.owner,
    execute: (owners) => sql`SELECT owner, name FROM pet WHERE ${sql.in("owner", owners)} ORDER BY id`
  })
  const Delete = yield* SqlResolver.void("DeletePerson", {
    Request: Schema.Number,
    execute: (ids) => sql`DELETE FROM person WHERE ${sql.in("id", ids)}`
  })
  return { Insert, ById, PetsOf, Delete }
})

const batched = <A, B, E, R>(items: ReadonlyArray<A>, f: (item: A) => Effect.Effect<B, E, R>) =>
  Effect.forEach(items, f, { batching: true })

const names = Effect.flatMap(RouterTest.PgCluster.PgCluster, ({ primary }) =>
  Effect.map(primary.query<{ name: string }>("SELECT name FROM person ORDER BY id"), (rows) =>
    rows.map((row) => row.name)
  )
)

layer(RouterTest.layer(), { excludeTestServices: true, timeout: "2 minutes" })("resolvers", (it) => {
  it.effect("that read are one statement, on a replica", () =>
    Effect.gen(function* () {
      yield* setUp
      const { ById, PetsOf } = yield* resolvers
      const [people, [byId, ...noMore]] = yield* RouterTest.traced(batched([1, 2, 9], ById.execute))
      assert.deepStrictEqual(people.map(Option.map((person) => person.name)), [
        Option.some("ada"),
        Option.some("bob"),
        Option.none()
      ])
      assert.deepInclude(byId, { group: "read", kind: "read" })
      const [pets, [petsOf, ...nothing]] = yield* RouterTest.traced(batched([1, 2, 3], PetsOf.execute))
      assert.deepStrictEqual(
        pets.map((list) => list.map((pet) => pet.name)),
        [["rex", "tom"], [], ["kit"]]
      )
      assert.deepInclude(petsOf, { group: "read", kind: "read" })
      assert.deepStrictEqual([noMore, nothing], [[], []])
    })
  )

  it.effect("that write are one statement, on the primary, and the flow sticks", () =>
    Effect.gen(function* () {
      yield* setUp
      const router = yield* DbRouter.DbRouter
      const { ById, Delete, Insert } = yield* resolvers
      const group = Effect.map(router.explain("SELECT 1"), (where) => where.group)
      const [people, [insert, ...noMore]] = yield* RouterTest.traced(
        batched([{ name: "dan" }, { name: "eve" }], Insert.execute)
      )
      assert.deepStrictEqual(people, [
        { id: 4, name: "dan" },
        { id: 5, name: "eve" }
      ])
      assert.deepInclude(insert, { engine: "primary", kind: "write" })
      assert.strictEqual(yield* group, "default")
      const [found, [byId]] = yield* RouterTest.traced(batched([4, 5], ById.execute))
      assert.isTrue(found.every(Option.isSome))
      assert.strictEqual(byId?.engine, "primary")
      yield* DbRouter.reset
      const [, [remove, ...nothing]] = yield* RouterTest.traced(batched([1, 2, 4], Delete.execute))
      assert.deepInclude(remove, { engine: "primary", kind: "write" })
      assert.strictEqual(yield* group, "default")
      assert.deepStrictEqual(yield* names, ["cy", "eve"])
      assert.deepStrictEqual([noMore, nothing], [[], []])
    })
  )

  it.effect("inside a transaction are part of it, batched still", () =>
    Effect.gen(function* () {
      const sql = yield* setUp
      const { ById, Delete, Insert, PetsOf } = yield* resolvers
      const [result, statements] = yield* RouterTest.traced(
        Effect.either(
          sql.withTransaction(
            Effect.gen(function* () {
              const [dan] = yield* batched([{ name: "dan" }, { name: "eve" }], Insert.execute)
              const seen = yield* batched([dan!.id, 1], ById.execute)
              yield* batched([1, 2], Delete.execute)
              const nested = yield* sql.withTransaction(batched([1, dan!.id], ById.execute))
              yield* batched([1, 3], PetsOf.execute)
              return yield* Effect.fail({ seen: seen.map(Option.isSome), nested: nested.map(Option.isSome) })
            })
          )
        )
      )
      assert.deepStrictEqual(result, Either.left({ seen: [true, true], nested: [false, true] }))
      assert.lengthOf(statements, 5)
      for (const { engine, reason } of statements) {
        assert.deepStrictEqual([engine, reason], ["primary", "inside a transaction"])
      }
      assert.deepStrictEqual(yield* names, ["ada", "bob", "cy"])
    })
  )

  it.effect("of two transactions at once are not mixed", () =>
    Effect.gen(function* () {
      const sql = yield* setUp
      const { ById, Insert } = yield* resolvers
      const one = (name: string) =>
        sql.withTransaction(
          Effect.gen(function* () {
            const person = yield* Insert.execute({ name })
            yield* Effect.sleep("20 millis")
            return Option.isSome(yield* ById.execute(person.id))
          })
        )
      const both = yield* Effect.all([one("dan"), one("eve"), Effect.as(ById.execute(1), true)], {
        concurrency: "unbounded",
        batching: true
      })
      assert.deepStrictEqual(both, [true, true, true])
      assert.deepStrictEqual([...(yield* names)].sort(), ["ada", "bob", "cy", "dan", "eve"])
    })
  )

  it.effect("with context use the transaction that they run in, wherever they were made", () =>
    Effect.gen(function* () {
      const sql = yield* setUp
      const make = SqlResolver.ordered("InsertWithContext", {
        Request: Schema.Struct({ name: Schema.String }),
        Result: Person,
        withContext: true,
        execute: (requests) =>
          Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO person ${sql.insert(requests)} RETURNING *`)
      })
      const outside = yield* make
      const inside = yield* sql.withTransaction(make)
      for (const resolver of [outside, inside]) {
        yield* Effect.ignore(
          sql.withTransaction(Effect.zipRight(resolver.execute({ name: "dropped" }), Effect.fail("no")))
        )
        yield* sql.withTransaction(resolver.execute({ name: "kept" }))
      }
      assert.deepStrictEqual(yield* names, ["ada", "bob", "cy", "kept", "kept"])
    })
  )

  it.effect("a combinator around the batch says where it goes", () =>
    Effect.gen(function* () {
      yield* setUp
      const { ById } = yield* resolvers
      const batch = RouterTest.enginesOf(batched([1, 2], ById.execute))
      assert.deepStrictEqual(yield* DbRouter.primary(batch), ["primary"])
      assert.deepStrictEqual(yield* DbRouter.bindGroup(batch, "analytics"), ["analytics1"])
    })
  )
})

class Pet extends Model.Class<Pet>("Pet")({
  id: Model.Generated(Schema.Number),
  owner: Schema.Number,
  name: Schema.String
}) {}

layer(RouterTest.layer(), { excludeTestServices: true, timeout: "2 minutes" })("schemas and repositories", (it) => {
  it.effect("SqlSchema", () =>
    Effect.gen(function* () {
      const sql = yield* setUp
      const byName = { Request: Schema.String, Result: Person } as const
      const all = SqlSchema.findAll({
        ...byName,
        execute: (name) => sql`SELECT * FROM person WHERE name >= ${name} ORDER BY id`
      })
      const one = SqlSchema.findOne({ ...byName, execute: (name) => sql`SELECT * FROM person WHERE name = ${name}` })
      const single = SqlSchema.single({
        ...byName,
        execute: (name) => sql`INSERT INTO person ${sql.insert({ name })} RETURNING *`
      })
      const remove = SqlSchema.void({
        Request: Schema.String,
        execute: (name) => sql`DELETE FROM person WHERE name = ${name}`
      })
      const [found, statements] = yield* RouterTest.traced(
        Effect.all([all("b"), one("cy"), one("zoe"), single("dan"), remove("ada"), one("ada")])
      )
      assert.deepStrictEqual(found, [
        [
          { id: 2, name: "bob" },
          { id: 3, name: "cy" }
        ],
        Option.some({ id: 3, name: "cy" }),
        Option.none(),
        { id: 4, name: "dan" },
        undefined,
        Option.none()
      ])
      assert.deepStrictEqual(
        statements.map(({ group, kind }) => [group, kind]),
        [
          ["read", "read"],
          ["read", "read"],
          ["read", "read"],
          ["default", "write"],
          ["default", "write"],
          ["default", "read"]
        ]
      )
    })
  )

  it.effect("Model.makeRepository", () =>
    Effect.gen(function* () {
      const sql = yield* setUp
      const pets = yield* Model.makeRepository(Pet, { tableName: "pet", spanPrefix: "Pets", idColumn: "id" })
      const [, [read]] = yield* RouterTest.traced(pets.findById(1))
      assert.strictEqual(read?.group, "read")
      const [[inserted, updated, found, gone], statements] = yield* RouterTest.traced(
        Effect.gen(function* () {
          const inserted = yield* pets.insert(Pet.insert.make({ owner: 2, name: "new" }))
          const updated = yield* pets.update(Pet.update.make({ ...inserted, name: "renamed" }))
          const found = yield* pets.findById(inserted.id)
          yield* pets.insertVoid(Pet.insert.make({ owner: 2, name: "second" }))
          yield* pets.updateVoid(Pet.update.make({ ...updated, owner: 3 }))
          yield* pets.delete(inserted.id)
          return [inserted, updated, found, yield* pets.findById(inserted.id)] as const
        })
      )
      assert.deepInclude(inserted, { owner: 2, name: "new" })
      assert.deepInclude(updated, { id: inserted.id, name: "renamed" })
      assert.deepStrictEqual(found, Option.some(updated))
      assert.deepStrictEqual(gone, Option.none())
      assert.deepStrictEqual(new Set(statements.map(({ engine }) => engine)), new Set(["primary"]))
      assert.deepStrictEqual(
        statements.map(({ kind }) => kind),
        ["write", "write", "read", "write", "write", "write", "read"]
      )
      const exit = yield* Effect.exit(sql.withTransaction(Effect.zipRight(pets.delete(1), Effect.fail("no"))))
      assert.isTrue(exit._tag === "Failure" && Option.isSome(yield* pets.findById(1)))
    })
  )

  it.effect("Model.makeDataLoaders", () =>
    Effect.gen(function* () {
      yield* setUp
      const pets = yield* Model.makeDataLoaders(Pet, {
        tableName: "pet",
        spanPrefix: "Pets",
        idColumn: "id",
        window: "5 millis"
      })
      // They run in a fiber of their own, where no tracer of ours is.
      const found = yield* Effect.all([pets.findById(1), pets.findById(3)], { concurrency: "unbounded" })
      assert.deepStrictEqual(found.map(Option.map((pet) => pet.name)), [Option.some("rex"), Option.some("kit")])
      const reads = yield* RouterTest.ranOn('from "pet" where "id" IN ($1,$2)')
      assert.lengthOf(reads, 1)
      assert.oneOf(reads[0], ["replica1", "replica2"])
      yield* Effect.all(
        ["x", "y"].map((name) => pets.insert(Pet.insert.make({ owner: 1, name }))),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(yield* RouterTest.ranOn('insert into "pet" ("owner","name") VALUES ($1,$2),($3,$4)'), [
        "primary"
      ])
      // For the same reason neither transactions nor stickiness pass between them and their callers.
      assert.strictEqual((yield* (yield* DbRouter.DbRouter).explain("SELECT 1")).group, "read")
    }).pipe(Effect.scoped)
  )
})
